// What the element is made of: shared by its two halves, wansrc.cpp (class, states, negotiation) and
// frame_stream.cpp (the streaming thread).
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cuda_memory.h"
#include "frame_pump.h"
#include "pacer.h"
#include "properties.h"
#include "reports.h"
#include "wansrc.h"

namespace wan {

// What start() sets up and stop() ends. Pump, settings, format and info are written under the object lock.
struct Run {
  std::shared_ptr<FramePump> pump;
  std::shared_ptr<CudaMemory> cuda;  // of the model's GPU
  bool started = false;
  int num_frames = 0;  // the property, as it counts for this run
  ModelChoice choice;
  RunSettings settings;
  FrameFormat format;
  GstVideoInfo info = {};
  bool prerolling = false;  // progress messages are posted
  Chunk chunk;              // being pushed; empty between chunks
  int chunk_next = 0;       // its next frame
  bool handed = false;      // that frame was given to the base class, which may drop it before it leaves
  int heralded_clip = -1;   // whose events were sent
  int on_air_clip = -1;     // whose frames are sent
  int clip_frames = 0;      // sent of that clip
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

inline constexpr gint64 kUntold = -2;  // before a DURATION query

struct ObjectLock {
  explicit ObjectLock(gpointer object) : object(object) { GST_OBJECT_LOCK(object); }
  ~ObjectLock() { GST_OBJECT_UNLOCK(object); }
  gpointer object;
};

// All that an element holds.
struct Private {
  Settings settings;                       // object lock
  guint32 clips_enqueued = 0;              // object lock; the last one's id
  std::string uri;                         // object lock; as it was set
  std::vector<GParamSpec *> uri_settings;  // object lock; the properties that it set
  const WanEngineApi *engine = nullptr;    // object lock
  Run run;
  Live live;
  Pacer pacer;
  AirStats air;
  bool is_live = false;          // object lock; the property, for the next run
  gint64 told_frames = kUntold;  // object lock; the last answer to a DURATION query of this run
  const std::shared_ptr<PromptTrack> track = std::make_shared<PromptTrack>();
  const std::array<std::shared_ptr<PictureTrack>, WAN_PICTURE_KINDS> picture_tracks = {
      std::make_shared<PictureTrack>(), std::make_shared<PictureTrack>()};  // by WanPictureKind
  const std::shared_ptr<Turns> workers = std::make_shared<Turns>();
  std::shared_ptr<SharedModel> kept_model;  // from run to run until NULL
  GList *hidden_pads = nullptr;             // object lock; see hide_sink_pads()
};

}  // namespace wan

struct _GstWanSrc {
  GstPushSrc parent;
  wan::Private *priv;
};

namespace wan {

/** Whether it is live in this run. */
inline bool is_live(GstWanSrc *self) {
  return self->priv->run.settings.live;
}

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
