// What the element is made of: shared by its two halves, wansrc.cpp (class, states, negotiation) and
// frame_stream.cpp (the streaming thread).
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <atomic>
#include <memory>
#include <string>

#include "cuda_memory.h"
#include "frame_pump.h"
#include "pacer.h"
#include "properties.h"
#include "reports.h"
#include "wansrc.h"

namespace wan {

// What start() sets up and stop() ends. Pump, settings and info are written under the object lock.
struct Run {
  std::shared_ptr<FramePump> pump;
  std::shared_ptr<CudaMemory> cuda;  // of the model's GPU
  bool started = false;
  ModelChoice choice;
  RunSettings settings;
  GstVideoInfo info = {};
  bool loading = false;
  Chunk chunk;         // being pushed; empty between chunks
  int chunk_next = 0;  // its next frame
  bool handed = false;  // that frame was given to the base class, which may drop it before it leaves
};

// Of a live source; for the streaming thread.
struct Live {
  Filler filler = Filler::Black;
  bool filling = true;         // the queue, before frames go on air
  Chunk last;                  // holds the frame that was sent last; empty before the first
  int last_frame = 0;          // in that chunk
  guint64 missing_frames = 0;  // since the underrun that goes on began; 0: none does
  int faded_frames = 0;        // of the first ones
  bool discont = false;        // the next frame does not follow on the last
  std::atomic<bool> segment_sent = false;
};

inline constexpr gint64 kUntold = -2;

struct ObjectLock {
  explicit ObjectLock(gpointer object) : object(object) { GST_OBJECT_LOCK(object); }
  ~ObjectLock() { GST_OBJECT_UNLOCK(object); }
  gpointer object;
};

}  // namespace wan

struct _GstWanSrc {
  GstPushSrc parent;

  wan::Settings settings;  // object lock
  std::string uri;         // object lock; as it was set
  const WanEngineApi *engine;
  wan::Run run;
  wan::Live live;
  wan::Pacer pacer;
  wan::AirStats air;
  bool is_live;        // object lock; the property, for the next run
  gint64 told_frames;  // object lock; the last answer to a DURATION query of this run, kUntold before one
  std::shared_ptr<wan::PromptTrack> track;
  wan::ModelChoice kept_choice;  // of the model that is kept from run to run until NULL
  std::shared_ptr<WanModel> kept_model;
};

namespace wan {

/** Whether it is live in this run. */
inline bool is_live(GstWanSrc *self) {
  return self->run.settings.live;
}

/** Exact. */
inline GstClockTime frame_time(const GstVideoInfo &info, guint64 frame) {
  return gst_util_uint64_scale(frame, GST_SECOND * info.fps_d, info.fps_n);
}

/** Posts an error message of the domain and code that stand for the status. */
void post_error(GstWanSrc *self, WanStatus status, const std::string &message);
/** Posts a progress message of the model's loading. */
void post_load_progress(GstWanSrc *self, GstProgressType type, const std::string &text);
/** Posts a message if the duration is another than was answered last. */
void announce_duration(GstWanSrc *self);
/** Sends an event downstream before the next buffer. */
void queue_event(GstWanSrc *self, GstEvent *event);

/** The next frame to be pushed; a live source waits until it is time for it. */
GstFlowReturn next_frame(GstWanSrc *self, GstBuffer **buffer);
/** The frame that next_frame() made last leaves the element. Those that are never seen here, since they were
 * dropped for a pause or a flush, are made again. */
void frame_leaves(GstWanSrc *self, GstBuffer *buffer);

}  // namespace wan
