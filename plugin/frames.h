// Buffers of decoded frames, and those that stand in for them.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include "frame_pump.h"

namespace wan {

/** A buffer that wraps the frame's memory, which lives as long as it. Downstream must not write to memory of
 * a frame that may be sent again: `shared` makes it read-only, so that whoever wants to write copies it. */
GstBuffer *wrap_frame(const Chunk &chunk, int frame, gsize size, bool shared);

GstBuffer *black_frame(const GstVideoInfo &info);

/** Replaces a frame by what it looks like when it has faded in from black so far: 0 is black, 1 the frame. */
void fade_in(const GstVideoInfo &info, GstBuffer **buffer, double visible);

}  // namespace wan
