// Prompts with a time: what came in at the pad prompt_sink.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

namespace wan {

/** All times are nanoseconds of running time. Its methods may be called from any thread. */
class PromptTrack {
 public:
  static constexpr uint64_t kOpen = UINT64_MAX;  // an end that is not known
  static constexpr size_t kMaxCues = 65536;      // waiting at once

  struct Cue {
    std::string prompt;  // empty before the first one
    bool last;           // no other one comes after it
    uint64_t until;  // when the next one begins, or the last one ends; kOpen: not before the end asked for
  };

  /** Whether prompts come in at all; at() has none where they do not. */
  void set_attached(bool attached);
  bool is_attached() const;
  /** In order of their times; false if too many wait already. duration: kOpen where unknown. */
  bool add(std::string prompt, uint64_t start, uint64_t duration);
  /** Nothing comes that begins before `time`. */
  void advance(uint64_t time);
  /** Nothing more comes. */
  void end();
  /** Forgets all: another stream begins. */
  void reset();

  /** The cue at `time`, for a clip that would last until `end`; none after the end of the last one. Where
   * that cannot be told yet it waits if `wait`, else it takes what is known. Forgets what lies before `time`.
   */
  std::optional<Cue> at(uint64_t time, uint64_t end, bool wait);
  /** at() waits no longer, or does again. */
  void set_flushing(bool flushing);

 private:
  struct Entry {
    std::string prompt;
    uint64_t start, end;
    bool used;
  };
  bool is_known(uint64_t time, uint64_t end) const;

  mutable std::mutex mutex_;  // guards all that follows
  std::condition_variable changed_;
  std::deque<Entry> entries_;
  uint64_t advanced_ = 0;
  bool attached_ = false, ended_ = false, flushing_ = false;
};

}  // namespace wan
