// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pacer.h"

#include <algorithm>
#include <utility>

namespace wan {
namespace {

// A frame may be sent so late before its time counts as missed: the threads of a busy machine are.
constexpr GstClockTime kTolerance = 100 * GST_MSECOND;

// The element's clock, or the system's in its place.
class ElementClock {
 public:
  explicit ElementClock(GstElement *element) : clock_(gst_element_get_clock(element)), own_(clock_) {
    if (!clock_) clock_ = gst_system_clock_obtain();
  }
  ~ElementClock() { gst_object_unref(clock_); }
  ElementClock(const ElementClock &) = delete;
  ElementClock &operator=(const ElementClock &) = delete;

  GstClock *get() const { return clock_; }
  bool is_own() const { return own_; }

 private:
  GstClock *clock_;
  const bool own_;
};

}  // namespace

void Pacer::reset(const FrameClock &clock) {
  start_ = GST_CLOCK_TIME_NONE;
  frame_ = 0;
  held_ = 0;
  clock_ = clock;
}

// How far from its time a frame may be.
GstClockTime Pacer::slack() const {
  return std::max(kTolerance, duration());
}

void Pacer::begin(GstClockTime running_time) {
  start_ = running_time;
  frame_ = 0;
}

// Without a clock nobody is late: time goes on from frame to frame, whatever there was in between. When there
// is a clock again, frames follow it.
GstClockTime Pacer::base_time(GstElement *src, bool has_clock, GstClockTime clock_time) {
  if (has_clock) {
    if (std::exchange(own_base_, kNone) != kNone) start_ = GST_CLOCK_TIME_NONE;
    return gst_element_get_base_time(src);
  }
  if (!GST_CLOCK_TIME_IS_VALID(start_)) begin(0);
  own_base_ = std::max(own_base_, GST_CLOCK_DIFF(time(), clock_time));
  return own_base_;
}

// Begins where running time is, at the start and after a flush that set it back.
void Pacer::follow(GstClockTime running_time) {
  if (!GST_CLOCK_TIME_IS_VALID(start_) || (running_time + duration() + slack() < time() && take_flush()))
    begin(running_time);
}

// State, clock and base time are looked at anew after each sleep, for a pause may have changed all of them.
GstFlowReturn Pacer::wait(GstBaseSrc *src, bool stalled, guint64 *missed) {
  for (bool by_downstream = !stalled;; by_downstream = false) {
    if (const GstFlowReturn flow = gst_base_src_wait_playing(src); flow != GST_FLOW_OK) return flow;
    const ElementClock clock(GST_ELEMENT(src));
    const GstClockTime clock_time = gst_clock_get_time(clock.get());
    const GstClockTime base = base_time(GST_ELEMENT(src), clock.is_own(), clock_time);
    const GstClockTime now = std::max<GstClockTimeDiff>(0, GST_CLOCK_DIFF(base, clock_time));
    follow(now);
    if (now >= time()) {
      *missed = leave_out(now, by_downstream);
      return GST_FLOW_OK;
    }
    sleep_until(clock.get(), base + time());
  }
}

// Whether there was a flush, after which the running time may go back once.
bool Pacer::take_flush() {
  const std::lock_guard lock(mutex_);
  return std::exchange(flushed_, false);
}

void Pacer::sleep_until(GstClock *clock, GstClockTime time) {
  const GstClockID id = gst_clock_new_single_shot_id(clock, time);
  bool interrupted = false;
  {
    const std::lock_guard lock(mutex_);
    interrupted = interrupted_;
    if (!interrupted) waiting_ = id;
  }
  // What was interrupted stays so until the frame is sent, even if it was by a pause that is over.
  if (interrupted)
    g_usleep(kMoment);
  else
    gst_clock_id_wait(id, nullptr);
  const std::lock_guard lock(mutex_);
  waiting_ = nullptr;
  gst_clock_id_unref(id);
}

guint64 Pacer::leave_out(GstClockTime now, bool by_downstream) {
  const GstClockTime late = now - time();
  if (late <= slack() + latency_ || (by_downstream && is_held_back(late))) return 0;
  held_ = 0;
  const guint64 due = clock_.frame_at(now - start_);
  const guint64 missed = due > frame_ ? due - frame_ : 0;
  frame_ += missed;
  return missed;
}

// A sink may hold each frame for longer than the latency says (ts-offset). Then every frame comes as late as
// the one before; behind a neighbour that was blocked once they come ever less late, behind one that is too
// slow ever later.
bool Pacer::is_held_back(GstClockTime late) {
  if (held_ == 0) held_ = late;
  return late <= held_ + slack() && held_ <= late + slack();
}

void Pacer::interrupt() {
  const std::lock_guard lock(mutex_);
  interrupted_ = true;
  if (waiting_) gst_clock_id_unschedule(waiting_);
}

void Pacer::look_again() {
  const std::lock_guard lock(mutex_);
  if (waiting_) gst_clock_id_unschedule(waiting_);
}

void Pacer::resume() {
  const std::lock_guard lock(mutex_);
  flushed_ |= interrupted_;
  interrupted_ = false;
}

}  // namespace wan
