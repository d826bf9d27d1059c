// What the element tells: messages to the application, events to downstream, tags, statistics, and the meta
// of each frame. All texts of messages but those of errors are here.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <atomic>
#include <source_location>
#include <string>

#include "frame_pump.h"
#include "wansrc.h"

namespace wan {

/** What was sent. */
struct AirStats {
  std::atomic<guint64> frames_pushed = 0;
  std::atomic<double> prompt_to_screen = 0;     // seconds from a prompt to its first frame, of the newest
  std::atomic<double> first_frame_seconds = 0;  // after the last denoising step, of the newest clip
  // Live:
  std::atomic<guint64> repeated = 0;  // frames sent again, and fillers
  std::atomic<guint64> gaps = 0;      // gap events
  std::atomic<guint64> dropped = 0;   // frame times that passed unused, since downstream was late
  std::atomic<guint64> underruns = 0;
};

// ---- errors and warnings, with the place where they arose

/** Posts an error message of the domain and code that stand for the status. */
void post_error(GstWanSrc *self, WanStatus status, const std::string &message,
                const std::source_location &where = std::source_location::current());
void post_error(GstWanSrc *self, const Failure &failure);
/** RESOURCE/SETTINGS: something was not as it was asked for, and the stream goes on. */
void post_warning(GstWanSrc *self, const std::string &message,
                  const std::source_location &where = std::source_location::current());
/** Passes on what the engine says: to the application if it is a warning, else to the log. */
void post_log(GstWanSrc *self, const Log &log);

// ---- progress messages (code "preroll") of a source that is not live, for what comes before its first frame

/** START, unless the source is live: applications wait in PAUSED until progress is complete. */
void begin_preroll(GstWanSrc *self, const std::string &text);
/** CONTINUE; nothing after the end. */
void continue_preroll(GstWanSrc *self, const std::string &text);
/** COMPLETE, CANCELED or ERROR; nothing where it has ended already. */
void end_preroll(GstWanSrc *self, GstProgressType type, const std::string &text);

// ---- element messages

/** CONTINUE with the time left, before the first frame; and of a clip, or of a live source's model, the
 * element message "wan-progress": id (guint), clip (int; -1 while loading), seed (guint64), stage (string:
 * load, text, denoise or decode), step and steps (int: done and in all), seconds (double, since the stage
 * began), cached-forwards (int). */
void post_progress(GstWanSrc *self, const Progress &progress);
/** "wan-clip", when the first frame of a clip is sent: id (guint, enqueue's; 0 if it was not enqueued), clip
 * (int), pts (guint64, of that frame), width and height (int), and the settings in effect, named as the
 * properties: seed (guint64), prompt, steps, guidance-scale and so on. */
void post_clip(GstWanSrc *self, const Clip &clip, GstClockTime pts);
/** "wan-clip-done" when all of a clip was sent, or "wan-clip-skipped": id, clip, seed, prompt, and frames
 * (int, how many of it were sent). */
void post_clip_ended(GstWanSrc *self, const ClipEnded &ended, int frames);
/** "wan-clip-skipped" of a clip that left the queue before its turn: id, clip (-1) and frames (0). */
void post_clip_dropped(GstWanSrc *self, guint id);
/** "wan-clip-failed", when a clip could not be made and the stream goes on: id, clip, seed and prompt, and
 * what an error message would hold: error (string), domain (string) and code (int); and a warning message. */
void post_clip_failed(GstWanSrc *self, const ClipFailed &failed);
/** "wan-underrun": running (boolean: it begins or is over), pts (guint64, of the first frame that is missing
 * or is there again), frames (guint64, frame times without a frame of their own so far). */
void post_underrun(GstWanSrc *self, bool running, GstClockTime pts, guint64 frames);

// ---- along with the frames

/** The custom event "wan-clip", which goes before the first frame of a clip: as the message. */
GstEvent *clip_event(GstWanSrc *self, const Clip &clip, GstClockTime pts);
/** Tags of a clip: its prompt as the title, and as the comment what follows "wansrc" in a launch line that
 * makes it again. */
GstTagList *clip_tags(const Clip &clip, const ModelChoice &choice, const GstVideoInfo &info);

/** Registers the custom meta that every frame carries, "GstWanMeta":
 *  id (guint, as in wan-clip), clip (int), chunk (int, the latent frame in the clip), frame (int, in the
 * clip), seed (guint64) and repeated (boolean). A filler before the first frame has -1 for all of the int. */
void register_meta();
void add_meta(GstBuffer *buffer, const Chunk &chunk, int frame, bool repeated);

/** The value of the property stats. */
GstStructure *stats_structure(const PumpStats &stats, const AirStats &air, const WanDefaults &defaults,
                              const GstVideoInfo &info);

}  // namespace wan
