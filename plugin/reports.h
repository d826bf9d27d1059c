// What the element tells the application: progress, statistics, tags, and the meta of each frame.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <atomic>

#include "frame_pump.h"

namespace wan {

/** What was sent. */
struct AirStats {
  std::atomic<guint64> frames_pushed = 0;
  std::atomic<double> first_frame_seconds = 0;  // after the last denoising step, of the newest clip
  // Live:
  std::atomic<guint64> repeated = 0;  // frames sent again, and fillers
  std::atomic<guint64> gaps = 0;      // gap events
  std::atomic<guint64> dropped = 0;   // frame times that passed unused, since downstream was late
  std::atomic<guint64> underruns = 0;
};

/** Registers the custom meta that every frame carries, "GstWanMeta":
 *  id (guint, as in wan-clip), clip (int), chunk (int, the latent frame in the clip), frame (int, in the
 * clip), seed (guint64) and repeated (boolean). A filler before the first frame has -1 for all of the int. */
void register_meta();
void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame, bool repeated);

/** The structure "wan-progress" of an element message: id (guint), clip (int; -1 while loading), seed
 * (guint64), stage (string: load, text, denoise or decode), step and steps (int: done and in all), seconds
 * (double, since the stage began). */
GstStructure *progress_structure(const Progress &progress);

/** "wan-clip", when the first frame of a clip is sent: id (guint, enqueue's; 0 if it was not enqueued), clip
 * (int), seed (guint64), prompt (string), pts (guint64, of that frame). */
GstStructure *clip_structure(const Clip &clip, GstClockTime pts);

/** "wan-clip-failed", when a clip could not be made and the stream goes on: id, clip, seed and prompt as in
 * wan-clip, and what an error message would hold: error (string), domain (string) and code (int). */
GstStructure *failure_structure(const Clip &clip, const char *error, GQuark domain, int code);

/** "wan-underrun": running (boolean: it begins or is over), pts (guint64, of the first frame that is missing
 * or is there again), frames (guint64, frame times without a frame of their own so far). */
GstStructure *underrun_structure(bool running, GstClockTime pts, guint64 frames);

/** The value of the property stats. */
GstStructure *stats_structure(const PumpStats &stats, const AirStats &air);

/** Tags of a clip: its prompt as the title, and as the comment what follows "wansrc" in a launch line that
 * makes it again. */
GstTagList *clip_tags(const Clip &clip, const ModelChoice &choice, const GstVideoInfo &info);

}  // namespace wan
