// What the element tells the application: progress, statistics, tags, and the meta of each frame.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include "frame_pump.h"

namespace wan {

/** Registers the custom meta that every frame carries, "GstWanMeta":
 *  clip (int), chunk (int, the latent frame in the clip), frame (int, in the clip) and seed (guint64). */
void register_meta();
void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame);

/** The structure "wan-progress" of an element message: clip (int), seed (guint64), stage (string: text,
 * denoise or decode), step and steps (int: done and in all), seconds (double, since the stage began). */
GstStructure *progress_structure(const Progress &progress);

/** The value of the property stats. */
GstStructure *stats_structure(const PumpStats &stats, guint64 frames_pushed, double first_frame_seconds);

/** Tags of a clip: its prompt as the title, and the settings that make it again as the comment. */
GstTagList *clip_tags(const Clip &clip, const RunSettings &run);

}  // namespace wan
