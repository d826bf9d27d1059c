// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pacer.h"

#include <algorithm>

namespace wan {
namespace {

// A frame may be sent so late before its time counts as missed: the threads of a busy machine are.
constexpr GstClockTime kTolerance = 100 * GST_MSECOND;

GstClockTime running_time(GstBaseSrc *src) {
  const GstClockTime now = gst_element_get_current_running_time(GST_ELEMENT(src));
  return GST_CLOCK_TIME_IS_VALID(now) ? now : 0;  // without a clock there is no pace
}

}  // namespace

void Pacer::reset(int fps_n, int fps_d) {
  start_ = GST_CLOCK_TIME_NONE;
  frame_ = 0;
  fps_n_ = fps_n;
  fps_d_ = fps_d;
}

GstClockTime Pacer::time_of(guint64 frame) const {
  return start_ + gst_util_uint64_scale(frame, GST_SECOND * fps_d_, fps_n_);
}

GstFlowReturn Pacer::wait(GstBaseSrc *src, guint64 *missed) {
  *missed = 0;
  if (const GstFlowReturn flow = gst_base_src_wait_playing(src); flow != GST_FLOW_OK) return flow;
  const GstClockTime now = running_time(src);
  // A flush may set the running time back.
  if (!GST_CLOCK_TIME_IS_VALID(start_) || now + duration() + kTolerance < time()) {
    start_ = now;
    frame_ = 0;
  }
  if (now < time())
    if (const GstFlowReturn flow = wait_for_clock(src); flow != GST_FLOW_OK) return flow;
  *missed = leave_out(running_time(src));
  return GST_FLOW_OK;
}

GstFlowReturn Pacer::wait_for_clock(GstBaseSrc *src) {
  for (;;) {
    GstClock *clock = gst_element_get_clock(GST_ELEMENT(src));
    if (!clock) return GST_FLOW_OK;
    const GstClockTime due = gst_element_get_base_time(GST_ELEMENT(src)) + time();
    const GstClockID id = gst_clock_new_single_shot_id(clock, due);
    gst_object_unref(clock);
    const bool waited = wait_for_id(id);
    gst_clock_id_unref(id);
    if (waited) return GST_FLOW_OK;
    const std::lock_guard lock(mutex_);
    if (interrupted_) return GST_FLOW_FLUSHING;
  }
}

// False if it was interrupted.
bool Pacer::wait_for_id(GstClockID id) {
  {
    const std::lock_guard lock(mutex_);
    if (interrupted_) return false;
    waiting_ = id;
  }
  const GstClockReturn result = gst_clock_id_wait(id, nullptr);
  const std::lock_guard lock(mutex_);
  waiting_ = nullptr;
  return result != GST_CLOCK_UNSCHEDULED;
}

guint64 Pacer::leave_out(GstClockTime now) {
  const GstClockTime tolerance = std::max(kTolerance, duration());
  if (now <= time() + tolerance) return 0;
  const guint64 due = gst_util_uint64_scale(now - start_, fps_n_, GST_SECOND * fps_d_);
  const guint64 missed = due > frame_ ? due - frame_ : 0;
  frame_ += missed;
  return missed;
}

void Pacer::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  if (waiting_) gst_clock_id_unschedule(waiting_);
}

void Pacer::resume() {
  const std::lock_guard lock(mutex_);
  interrupted_ = false;
}

}  // namespace wan
