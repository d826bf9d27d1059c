// Pictures with a time: what came in at the pads image_sink and last_image_sink.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

namespace wan {

/** Each picture is shown from its time on, until the next one. All times are nanoseconds of running time. Its
 * methods may be called from any thread. */
class PictureTrack {
 public:
  using Sample = std::shared_ptr<GstSample>;

  /** Lets pictures come in; false if they can already. */
  bool attach();
  /** Pictures cannot come in any more, and what has come is forgotten. */
  void detach();
  bool is_attached() const;
  /** Whether somebody sends pictures: without, none is waited for. */
  void set_linked(bool linked);
  /** Whether pictures may come: a pad is there, and somebody is linked to it. */
  bool is_fed() const;
  /** Whether there is no picture and none comes. */
  bool is_ended() const;
  /** Of a live source the newest picture wins, and nobody waits for its time. */
  void set_live(bool live);

  // ---- for the thread that pictures come in on

  /** Waits while others wait to be shown. False if that was given up. */
  bool add(Sample sample, uint64_t start);
  /** Nothing comes that begins before `time`. */
  void advance(uint64_t time);
  /** Nothing more comes, or more does after all. */
  void set_ended(bool ended);
  /** add() gives up, until this is false again. */
  void set_flushing(bool flushing);
  /** Forgets all: the stream begins anew. */
  void reset();

  // ---- for the thread that makes clips

  /** The picture at `time`. Waits until it can be told which that is, unless that is given up, which is asked
   * again after wake(), or nothing has come for so long as `patience`. None where there is none. */
  Sample at(uint64_t time, std::chrono::milliseconds patience, const std::function<bool()> &given_up);
  /** The first of those that are there, whatever its time. */
  Sample earliest() const;
  void wake();
  /** Whoever sends pictures was waited for long enough: nobody waits again until something comes. */
  void set_silent();

 private:
  struct Entry {
    Sample sample;
    uint64_t start;
  };
  static constexpr size_t kMaxWaiting = 2;  // beside the one that is shown

  bool is_known(uint64_t time) const;
  void drop_before(uint64_t time);

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  std::deque<Entry> entries_;  // in order of their starts
  uint64_t advanced_ = 0;
  bool attached_ = false, linked_ = false, live_ = false, ended_ = false, flushing_ = false;
  bool silent_ = false;
};

}  // namespace wan
