// The clock of a live source: frame times of running time, waited for one after the other.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/base/gstbasesrc.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "frame_clock.h"

namespace wan {

/** Microseconds to sleep before the base class is asked again what interrupted a wait: a pause may be over
 * already (GStreamer 1.24 calls unlock() for it), and of a flush it hears a moment after unlock() was called.
 */
inline constexpr gulong kMoment = 10'000;

/** Frame n of the clock is due so long after the start, which is the running time of the first wait. Without
 * a clock the system's stands in. wait() and what comes after it are for the streaming thread, the rest for
 * any. */
class Pacer {
 public:
  /** Begins anew. */
  void reset(const FrameClock &clock);

  /** Waits until the next frame is due. If that was long ago (downstream was blocked, or the source
   * `stalled`), frame times that have passed are left out, and *missed says how many. FLUSHING where the base
   * class says so. */
  GstFlowReturn wait(GstBaseSrc *src, bool stalled, guint64 *missed);
  /** The running time at which the frame that was waited for is due, and its duration. */
  GstClockTime time() const { return start_ + clock_.time_of(frame_); }
  GstClockTime duration() const { return clock_.duration_of(frame_); }
  /** It was sent: on to the next. */
  void advance() { frame_ += 1; }

  /** What the pipeline has configured: a sink that is given frames at their time holds each for so long. */
  void set_latency(GstClockTime latency) { latency_ = std::min<GstClockTime>(latency, G_MAXINT64); }
  /** unlock() and unlock_stop() of the base class. */
  void interrupt();
  void resume();
  /** Has wait() look again at state, clock and base time. */
  void look_again();

 private:
  static constexpr GstClockTimeDiff kNone = GST_CLOCK_STIME_NONE;

  GstClockTime slack() const;
  void begin(GstClockTime running_time);
  GstClockTime base_time(GstElement *src, bool has_clock, GstClockTime clock_time);
  void follow(GstClockTime running_time);
  void sleep_until(GstClock *clock, GstClockTime time);
  bool take_flush();
  guint64 leave_out(GstClockTime now, bool by_downstream);
  bool is_held_back(GstClockTime late);

  GstClockTime start_ = GST_CLOCK_TIME_NONE;
  guint64 frame_ = 0;
  FrameClock clock_;
  GstClockTime held_ = 0;  // how late downstream's delay makes frames; 0: it has none, as far as is known
  GstClockTimeDiff own_base_ = kNone;  // base time on the system's clock, while that stands in
  std::atomic<GstClockTime> latency_ = 0;

  std::mutex mutex_;  // guards all that follows
  GstClockID waiting_ = nullptr;
  bool interrupted_ = false, flushed_ = false;
};

}  // namespace wan
