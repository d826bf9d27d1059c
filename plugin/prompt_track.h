// Prompts with a time: what came in at the pad prompt_sink.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

namespace wan {

/** All times are nanoseconds of running time. Its methods may be called from any thread. */
class PromptTrack {
 public:
  static constexpr uint64_t kOpen = UINT64_MAX;     // an end that is not known
  static constexpr size_t kMaxCues = 65536;         // waiting at once
  static constexpr size_t kMaxBytes = 64ull << 20;  // of all that wait

  struct Cue {
    std::string prompt;  // empty before the first one
    bool last;           // no other one comes after it
    uint64_t until;  // when the next one begins, or the last one ends; kOpen: not before the end asked for
  };

  /** Lets prompts come in; false if they can already. */
  bool attach();
  /** Prompts cannot come in any more, and what has come is forgotten. */
  void detach();
  bool is_attached() const;
  /** Whether somebody sends prompts: without, nothing more comes for the time being. */
  void set_linked(bool linked);

  // ---- for the thread that prompts come in on

  /** Waits while too many wait already; false if that was given up. duration: kOpen where unknown. */
  bool add(std::string prompt, uint64_t start, uint64_t duration);
  /** The same for one without a time: the stream shows it from now on. */
  bool add_now(std::string prompt);
  /** Nothing comes that begins before `time`. */
  void advance(uint64_t time);
  /** Nothing more comes, or more does after all. */
  void set_ended(bool ended);
  /** add() gives up, until this is false again. */
  void set_flushing(bool flushing);
  /** Forgets all: the film begins anew. */
  void reset();

  // ---- for the thread that makes clips

  /** Waits until it can be told what to show at `time`, in a clip that would last until `end`. False if
   * `given_up` says so, which is asked again after wake(). */
  bool wait(uint64_t time, uint64_t end, const std::function<bool()> &given_up);
  void wake();
  /** The cue at `time` as far as it is known; none after the end of the last one. `latest`: of prompts
   * without a time the newest one, else each has a clip. Forgets what lies before `time`. */
  std::optional<Cue> at(uint64_t time, bool latest);
  /** The cue of this prompt that at(time) gave cannot be shown: the one before goes on in its place. False if
   * that is the same, or no cue was shown at that time. */
  bool replace(const std::string &prompt, uint64_t time);

 private:
  struct Entry {
    std::string prompt;
    uint64_t start, end;
    bool used;
  };
  bool wait_for_room(std::unique_lock<std::mutex> &lock);
  bool is_over() const { return ended_ || !linked_; }
  bool is_known(uint64_t time, uint64_t end) const;
  void insert(Entry entry);
  bool has_room() const { return entries_.size() + untimed_.size() < kMaxCues && bytes_ < kMaxBytes; }
  void drop_first();
  void drop_before(uint64_t time);
  void take_untimed(uint64_t time, bool latest);

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  std::deque<Entry> entries_;        // in order of their starts
  std::deque<std::string> untimed_;  // in order of their arrival
  std::string before_;               // the prompt before the first of entries_
  size_t bytes_ = 0;                 // of the prompts that wait
  uint64_t advanced_ = 0;
  bool attached_ = false, linked_ = false, ended_ = false, flushing_ = false;
};

}  // namespace wan
