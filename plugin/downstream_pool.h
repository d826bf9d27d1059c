// Frames in memory that downstream asks for: of an X or a shared-memory sink, of a device.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

namespace wan {

/** Leaves in an answered ALLOCATION query the pool that frames are to be copied into, with VideoMeta where
 * downstream knows it. Leaves none where downstream has nothing to offer but ordinary memory, since the
 * engine's frames lie in such memory already and a copy would gain nothing. */
void choose_pool(GstQuery *query);

/** Copies a frame between buffers whose planes and rows may lie differently. */
bool copy_frame(const GstVideoInfo &info, GstBuffer *from, GstBuffer *to);

}  // namespace wan
