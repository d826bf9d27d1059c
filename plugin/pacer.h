// The clock of a live source: frame times of running time, waited for one after the other.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/base/gstbasesrc.h>

#include <mutex>

namespace wan {

/** Frame n is due at start + n / rate, where the start is the running time of the first wait. wait() and what
 * comes after it are for the streaming thread, interrupt() and resume() for any. */
class Pacer {
 public:
  /** Begins anew, at a rate of fps_n / fps_d frames a second. */
  void reset(int fps_n, int fps_d);

  /** Waits until the next frame is due. If that was long ago (downstream was blocked, or the source stalled),
   * frame times that have passed are left out, and *missed says how many. FLUSHING after interrupt(). */
  GstFlowReturn wait(GstBaseSrc *src, guint64 *missed);
  /** The running time at which the frame that was waited for is due, and its duration. */
  GstClockTime time() const { return time_of(frame_); }
  GstClockTime duration() const { return time_of(frame_ + 1) - time(); }
  /** It was sent: on to the next. */
  void advance() { frame_ += 1; }

  void interrupt();
  void resume();

 private:
  GstClockTime time_of(guint64 frame) const;
  bool wait_until(GstClock *clock, GstClockTime time);
  bool take_flush();
  guint64 leave_out(GstClockTime now);

  GstClockTime start_ = GST_CLOCK_TIME_NONE;
  guint64 frame_ = 0;
  int fps_n_ = 1, fps_d_ = 1;

  std::mutex mutex_;  // guards all that follows
  GstClockID waiting_ = nullptr;
  bool interrupted_ = false, flushed_ = false;
};

}  // namespace wan
