// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pacer.h"

#include <algorithm>
#include <utility>

namespace wan {
namespace {

// A frame may be sent so late before its time counts as missed: the threads of a busy machine are.
constexpr GstClockTime kTolerance = 100 * GST_MSECOND;

GstClockTime running_time(GstClock *clock, GstClockTime base_time) {
  const GstClockTime now = clock ? gst_clock_get_time(clock) : 0;  // without a clock there is no pace
  return now > base_time ? now - base_time : 0;
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
  if (const GstFlowReturn flow = gst_base_src_wait_playing(src); flow != GST_FLOW_OK) return flow;
  GstClock *clock = gst_element_get_clock(GST_ELEMENT(src));
  // Read once for both: a flush may set the running time back, and move the base time, at any moment.
  const GstClockTime base_time = gst_element_get_base_time(GST_ELEMENT(src));
  const GstClockTime now = running_time(clock, base_time);
  if (!GST_CLOCK_TIME_IS_VALID(start_) || (now + duration() + kTolerance < time() && take_flush())) {
    start_ = now;
    frame_ = 0;
  }
  const bool waited = !clock || now >= time() || wait_until(clock, base_time + time());
  // A pause meanwhile has moved the base time.
  const GstFlowReturn flow = waited ? gst_base_src_wait_playing(src) : GST_FLOW_FLUSHING;
  *missed = 0;
  if (flow == GST_FLOW_OK)
    *missed = leave_out(running_time(clock, gst_element_get_base_time(GST_ELEMENT(src))));
  gst_clear_object(&clock);
  return flow;
}

// Whether there was a flush, after which the running time may go back once.
bool Pacer::take_flush() {
  const std::lock_guard lock(mutex_);
  return std::exchange(flushed_, false);
}

// False if it was interrupted.
bool Pacer::wait_until(GstClock *clock, GstClockTime time) {
  const GstClockID id = gst_clock_new_single_shot_id(clock, time);
  {
    const std::lock_guard lock(mutex_);
    if (!interrupted_) waiting_ = id;
  }
  if (waiting_) gst_clock_id_wait(id, nullptr);
  const std::lock_guard lock(mutex_);
  waiting_ = nullptr;
  gst_clock_id_unref(id);
  return !interrupted_;
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
  flushed_ |= interrupted_;
  interrupted_ = false;
}

}  // namespace wan
