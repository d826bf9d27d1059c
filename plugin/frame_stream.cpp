// The streaming thread: takes what the pump delivers, makes buffers of it, and keeps a live source's pace.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <optional>
#include <utility>

#include "downstream_pool.h"
#include "frames.h"
#include "log.h"
#include "wansrc_private.h"

namespace wan {
namespace {

// ---- what the pump delivers, on the streaming thread

GstFlowReturn poll_chunk(GstWanSrc *self);

// Of a live source, a pause may have interrupted the wait, too.
GstFlowReturn take(GstWanSrc *self, const Flushing &) {
  if (!is_live(self)) return GST_FLOW_FLUSHING;
  const GstFlowReturn flow = gst_base_src_wait_playing(GST_BASE_SRC(self));
  if (flow != GST_FLOW_OK) return flow;
  g_usleep(kMoment);
  return poll_chunk(self);
}

GstFlowReturn take(GstWanSrc *self, const Loaded &) {
  GST_DEBUG_OBJECT(self, "the model is loaded");
  continue_preroll(self, "The model is loaded");
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const Progress &progress) {
  post_progress(self, progress);
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const ClipBegun &begun) {
  const Clip &clip = *begun.clip;
  ClipSettings settings = clip.settings;
  settings.seed = int64_t(clip.seed);
  GST_DEBUG_OBJECT(self, "clip %d (id %u) begins:%s", clip.index, clip.id, launch_line(settings).c_str());
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const ClipEnded &ended) {
  const Run &run = self->priv->run;
  post_clip_ended(self, ended, ended.clip->index == run.on_air_clip ? run.clip_frames : 0);
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const ClipFailed &failed) {
  post_clip_failed(self, failed);
  if (failed.clip->origin == ClipOrigin::Queued) g_object_notify(G_OBJECT(self), "prompts");
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const Log &log) {
  post_log(self, log);
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const Chunk &chunk) {
  end_preroll(self, GST_PROGRESS_TYPE_COMPLETE, "the first frames are there");
  if (chunk.clip->index != self->priv->run.heralded_clip)
    queue_event(self,
                gst_event_new_tag(clip_tags(*chunk.clip, self->priv->run.choice, self->priv->run.info)));
  announce_duration(self);
  self->priv->run.chunk = chunk;
  self->priv->run.chunk_next = 0;
  return GST_FLOW_OK;
}

GstFlowReturn take(GstWanSrc *self, const Finished &finished) {
  const Failure &failure = finished.failure;
  if (failure.status == WAN_OK) {
    end_preroll(self, GST_PROGRESS_TYPE_COMPLETE, "there is nothing to show");
    return GST_FLOW_EOS;
  }
  end_preroll(self, GST_PROGRESS_TYPE_ERROR, failure.message);
  post_error(self, failure);
  return GST_FLOW_ERROR;
}

GstFlowReturn take(GstWanSrc *self, const PumpEvent &event) {
  return std::visit([self](const auto &event) { return take(self, event); }, event);
}

// ---- buffers

GstFlowReturn copy_error(GstWanSrc *self, GstBuffer **copy) {
  gst_clear_buffer(copy);
  post_error(self, WAN_INTERNAL, "A frame could not be copied into the memory that downstream takes.");
  return GST_FLOW_ERROR;
}

// *buffer is none where there is no pool, or no longer: a neighbour that leaves takes its pool along.
GstFlowReturn acquire(GstWanSrc *self, GstBuffer **buffer) {
  *buffer = nullptr;
  GstBufferPool *pool = gst_base_src_get_buffer_pool(GST_BASE_SRC(self));
  if (!pool) return GST_FLOW_OK;
  const GstFlowReturn flow = gst_buffer_pool_acquire_buffer(pool, buffer, nullptr);
  const bool gone = flow == GST_FLOW_FLUSHING && !gst_buffer_pool_is_active(pool);
  gst_object_unref(pool);
  return gone ? GST_FLOW_OK : flow;
}

// Copies a frame in system memory, which it takes, into the pool that downstream offered; without one it
// stays where it is.
GstFlowReturn move_to_pool(GstWanSrc *self, GstBuffer *frame, GstBuffer **buffer) {
  const GstFlowReturn flow = acquire(self, buffer);
  if (flow == GST_FLOW_OK && !*buffer) {
    *buffer = frame;
    return flow;
  }
  const bool copied = flow == GST_FLOW_OK && copy_frame(self->priv->run.info, frame, *buffer);
  gst_buffer_unref(frame);
  return flow != GST_FLOW_OK || copied ? flow : copy_error(self, buffer);
}

GstFlowReturn copy_on_device(GstWanSrc *self, const uint8_t *frame, GstBuffer **buffer) {
  const GstFlowReturn flow = acquire(self, buffer);
  if (flow != GST_FLOW_OK) return flow;
  const bool copied = *buffer && self->priv->run.cuda->copy_frame(frame, self->priv->run.info, *buffer);
  return copied ? flow : copy_error(self, buffer);
}

void stamp(GstWanSrc *self, GstBuffer *buffer) {
  const guint64 frame = self->priv->air.frames_pushed;
  const FrameClock &clock = self->priv->run.format.clock;
  GST_BUFFER_PTS(buffer) = is_live(self) ? self->priv->pacer.time() : clock.time_of(frame);
  GST_BUFFER_DURATION(buffer) = is_live(self) ? self->priv->pacer.duration() : clock.duration_of(frame);
  // The base class would take the time at which it sees the buffer, after that of its frame.
  if (gst_base_src_get_do_timestamp(GST_BASE_SRC(self))) GST_BUFFER_DTS(buffer) = GST_BUFFER_PTS(buffer);
  GST_BUFFER_OFFSET(buffer) = frame;
  GST_BUFFER_OFFSET_END(buffer) = frame + 1;
}

void announce_clip(GstWanSrc *self, const Clip &clip, GstClockTime pts) {
  const std::chrono::duration<double> latency = std::chrono::steady_clock::now() - clip.denoised;
  self->priv->air.first_frame_seconds = latency.count();
  if (clip.asked != std::chrono::steady_clock::time_point()) {
    const std::chrono::duration<double> since = std::chrono::steady_clock::now() - clip.asked;
    self->priv->air.prompt_to_screen = since.count();
  }
  post_clip(self, clip, pts);
  g_object_notify(G_OBJECT(self), "stats");
  if (clip.origin == ClipOrigin::Queued) g_object_notify(G_OBJECT(self), "prompts");
}

// Whoever is downstream can begin a file with the clip: it starts with a key frame. The request has no
// running time, which stands for the next frame: of those that have one, encoders whose times are shifted
// (x264enc) take the first only.
void herald_clip(GstWanSrc *self, const Clip &clip, GstBuffer *first) {
  if (std::exchange(self->priv->run.heralded_clip, clip.index) == clip.index) return;
  const GstClockTime pts = GST_BUFFER_PTS(first);
  const GstSegment *segment = &GST_BASE_SRC(self)->segment;
  queue_event(self, clip_event(self, clip, pts));
  queue_event(self, gst_video_event_new_downstream_force_key_unit(
                        pts, gst_segment_to_stream_time(segment, GST_FORMAT_TIME, pts), GST_CLOCK_TIME_NONE,
                        TRUE, guint(clip.index)));
}

// How much of the next frame is seen while the first ones fade in, of all the frames of half a second. Frames
// in GPU memory do not fade.
double visible_part(GstWanSrc *self) {
  const Run &run = self->priv->run;
  const int frames = run.info.fps_n / run.info.fps_d / 2;
  const bool fades = run.settings.live && !run.format.on_device && self->priv->live.filler == Filler::Fade;
  return fades && self->priv->live.faded_frames < frames
             ? double(self->priv->live.faded_frames + 1) / (frames + 1)
             : 1;
}

// A frame of a chunk, not yet stamped.
GstFlowReturn frame_buffer(GstWanSrc *self, const Chunk &chunk, int frame, double visible,
                           GstBuffer **buffer) {
  const FrameFormat &format = self->priv->run.format;
  if (format.on_device)
    return copy_on_device(self, chunk.frames->data + frame * chunk.frames->frame_size, buffer);
  GstBuffer *wrapped = wrap_frame(chunk, frame, format.layout.size, is_live(self));
  if (visible < 1) fade_in(self->priv->run.info, &wrapped, visible);
  return move_to_pool(self, wrapped, buffer);
}

// The next frame of run.chunk, which stays the next one until it has left.
GstFlowReturn next_buffer(GstWanSrc *self, GstBuffer **buffer) {
  Run &run = self->priv->run;
  const GstFlowReturn flow = frame_buffer(self, run.chunk, run.chunk_next, visible_part(self), buffer);
  if (flow != GST_FLOW_OK) return flow;
  stamp(self, *buffer);
  add_meta(*buffer, run.chunk, run.chunk.frames->first_frame + run.chunk_next, false);
  herald_clip(self, *run.chunk.clip, *buffer);
  run.handed = true;
  return GST_FLOW_OK;
}

// The last frame once more, or black before the first.
GstFlowReturn filler_buffer(GstWanSrc *self, GstBuffer **buffer) {
  const Live &live = self->priv->live;
  const bool any = live.last.frames != nullptr;
  const GstFlowReturn flow = any ? frame_buffer(self, live.last, live.last_frame, 1, buffer)
                                 : move_to_pool(self, black_frame(self->priv->run.info), buffer);
  if (flow != GST_FLOW_OK) return flow;
  stamp(self, *buffer);
  add_meta(*buffer, live.last, any ? live.last.frames->first_frame + live.last_frame : -1, true);
  GST_BUFFER_FLAG_SET(*buffer, GST_BUFFER_FLAG_GAP);
  self->priv->run.handed = false;
  return GST_FLOW_OK;
}

// Of run.chunk, a frame has left.
void go_on_in_chunk(GstWanSrc *self, GstClockTime pts) {
  Run &run = self->priv->run;
  const Chunk chunk = run.chunk;
  if (is_live(self)) {
    self->priv->live.last = chunk;
    self->priv->live.last_frame = run.chunk_next;
    ++self->priv->live.faded_frames;
  }
  const bool begins_clip = chunk.clip->index != run.on_air_clip;
  if (++run.chunk_next == chunk.frames->num_frames) run.chunk = {};
  if (begins_clip) run.clip_frames = 0;
  run.on_air_clip = chunk.clip->index;
  ++run.clip_frames;
  if (begins_clip) announce_clip(self, *chunk.clip, pts);
  if (chunk.ends_clip && !run.chunk.frames) take(self, ClipEnded{chunk.clip, chunk.skipped});
}

// ---- live: a frame for every frame time

void post_qos(GstWanSrc *self) {
  const GstClockTime time = self->priv->pacer.time();
  GstMessage *message =
      gst_message_new_qos(GST_OBJECT(self), TRUE, time, time, time, self->priv->pacer.duration());
  gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS, self->priv->air.frames_pushed,
                            self->priv->air.dropped);
  gst_element_post_message(GST_ELEMENT(self), message);
}

void pass_missed(GstWanSrc *self, guint64 missed, bool stalled) {
  if (missed == 0) return;
  self->priv->live.discont = true;
  if (stalled) {
    self->priv->live.missing_frames += missed;
    return;
  }
  self->priv->air.dropped += missed;
  GST_INFO_OBJECT(self, "downstream is late: %" G_GUINT64_FORMAT " frame times are left out", missed);
  post_qos(self);
}

// There is no frame for this time.
void note_underrun(GstWanSrc *self) {
  Live &live = self->priv->live;
  if (!live.last.frames) return;  // it has not been on air yet
  const bool begins = live.missing_frames == 0;
  ++live.missing_frames;
  if (!begins) return;
  live.filling = true;
  ++self->priv->air.underruns;
  post_underrun(self, true, self->priv->pacer.time(), live.missing_frames);
}

void note_recovery(GstWanSrc *self) {
  self->priv->live.filling = false;
  const guint64 missing = self->priv->live.missing_frames;
  if (missing > 0) post_underrun(self, false, self->priv->pacer.time(), missing);
  self->priv->live.missing_frames = 0;
}

// Frames to hold before any is taken. Room is made for them also while they need not be there.
guint64 least_frames(GstWanSrc *self) {
  if (!is_live(self)) return 1;
  const ObjectLock lock(self);
  const guint64 prebuffer = self->priv->run.format.clock.frame_from(self->priv->settings.prebuffer);
  self->priv->run.pump->hold(prebuffer);
  return self->priv->live.filling ? std::max<guint64>(1, prebuffer) : 1;
}

// Takes what the pump has until there are frames; they may be missing in the end.
GstFlowReturn poll_chunk(GstWanSrc *self) {
  const guint64 least = least_frames(self);
  while (!self->priv->run.chunk.frames) {
    const std::optional<PumpEvent> event = self->priv->run.pump->poll(least);
    if (!event) return GST_FLOW_OK;
    if (const GstFlowReturn flow = take(self, *event); flow != GST_FLOW_OK) return flow;
  }
  return GST_FLOW_OK;
}

GstFlowReturn wait_for_chunk(GstWanSrc *self) {
  const guint64 least = least_frames(self);
  while (!self->priv->run.chunk.frames)
    if (const GstFlowReturn flow = take(self, self->priv->run.pump->pop(least)); flow != GST_FLOW_OK)
      return flow;
  return GST_FLOW_OK;
}

Underrun underrun_policy(GstWanSrc *self) {
  const ObjectLock lock(self);
  return self->priv->settings.underrun;
}

void send_gap(GstWanSrc *self) {
  ++self->priv->air.gaps;
  self->priv->live.discont = true;
  gst_pad_push_event(GST_BASE_SRC_PAD(self),
                     gst_event_new_gap(self->priv->pacer.time(), self->priv->pacer.duration()));
}

// After the frame for this time was made, or its gap sent.
void end_frame_time(GstWanSrc *self, GstBuffer *buffer) {
  if (buffer && self->priv->live.discont) GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  self->priv->pacer.advance();
}

GstFlowReturn create_live(GstWanSrc *self, GstBuffer **buffer) {
  bool stalled = false;
  for (;;) {
    guint64 missed = 0;
    GstFlowReturn flow = self->priv->pacer.wait(GST_BASE_SRC(self), stalled, &missed);
    if (flow != GST_FLOW_OK) return flow;
    self->priv->run.pump->set_air_time(self->priv->pacer.time());
    if (flow = poll_chunk(self); flow != GST_FLOW_OK) return flow;  // after the last frame nothing is missed
    pass_missed(self, missed, stalled);
    if (self->priv->run.chunk.frames) {
      if (flow = next_buffer(self, buffer); flow != GST_FLOW_OK) return flow;
      note_recovery(self);
      end_frame_time(self, *buffer);
      return GST_FLOW_OK;
    }

    note_underrun(self);
    const Underrun policy = underrun_policy(self);
    stalled = policy == Underrun::Stall;
    if (stalled) {
      if (flow = wait_for_chunk(self); flow != GST_FLOW_OK) return flow;
      continue;
    }
    // A gap needs a segment before it, which the base class sends with a buffer.
    if (policy == Underrun::Gap && self->priv->live.segment_sent) {
      send_gap(self);
      end_frame_time(self, nullptr);
      continue;
    }
    if (flow = filler_buffer(self, buffer); flow != GST_FLOW_OK) return flow;
    end_frame_time(self, *buffer);
    return GST_FLOW_OK;
  }
}

}  // namespace

void frame_leaves(GstWanSrc *self, GstBuffer *buffer) {
  GST_LOG_OBJECT(self, "frame %" G_GUINT64_FORMAT " leaves: %" GST_PTR_FORMAT,
                 self->priv->air.frames_pushed.load(), buffer);
  ++self->priv->air.frames_pushed;
  self->priv->live.segment_sent = true;
  self->priv->live.discont = false;
  if (std::exchange(self->priv->run.handed, false))
    go_on_in_chunk(self, GST_BUFFER_PTS(buffer));
  else
    ++self->priv->air.repeated;
}

GstFlowReturn next_frame(GstWanSrc *self, GstBuffer **buffer) {
  if (is_live(self)) return create_live(self, buffer);
  const GstFlowReturn flow = wait_for_chunk(self);
  return flow == GST_FLOW_OK ? next_buffer(self, buffer) : flow;
}

}  // namespace wan
