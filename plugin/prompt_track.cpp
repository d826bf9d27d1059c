// SPDX-License-Identifier: LGPL-2.1-or-later
#include "prompt_track.h"

#include <utility>

namespace wan {

void PromptTrack::set_attached(bool attached) {
  const std::lock_guard lock(mutex_);
  attached_ = attached;
  changed_.notify_all();
}

bool PromptTrack::is_attached() const {
  const std::lock_guard lock(mutex_);
  return attached_;
}

bool PromptTrack::add(std::string prompt, uint64_t start, uint64_t duration) {
  const std::lock_guard lock(mutex_);
  if (entries_.size() == kMaxCues) return false;
  entries_.push_back({std::move(prompt), start, duration == kOpen ? kOpen : start + duration, false});
  changed_.notify_all();
  return true;
}

void PromptTrack::advance(uint64_t time) {
  const std::lock_guard lock(mutex_);
  advanced_ = time;
  changed_.notify_all();
}

void PromptTrack::end() {
  const std::lock_guard lock(mutex_);
  ended_ = true;
  changed_.notify_all();
}

void PromptTrack::reset() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
  advanced_ = 0;
  ended_ = false;
}

void PromptTrack::set_flushing(bool flushing) {
  const std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

// Whether no cue that is still to come can change what at() says.
bool PromptTrack::is_known(uint64_t time, uint64_t end) const {
  return ended_ || advanced_ >= end || (!entries_.empty() && entries_.back().start > time);
}

std::optional<PromptTrack::Cue> PromptTrack::at(uint64_t time, uint64_t end, bool wait) {
  std::unique_lock lock(mutex_);
  if (wait) changed_.wait(lock, [&] { return flushing_ || !attached_ || is_known(time, end); });
  if (!attached_) return std::nullopt;
  while (entries_.size() > 1 && entries_[1].start <= time) entries_.pop_front();
  if (entries_.empty()) return ended_ ? std::nullopt : std::optional(Cue{"", false, kOpen});

  Entry &entry = entries_.front();
  if (entry.start > time) return Cue{"", false, entry.start};
  if (entries_.size() > 1) return Cue{entry.prompt, false, entries_[1].start};
  // A last cue without a duration is good for one clip.
  const bool over = entry.end == kOpen ? std::exchange(entry.used, true) : entry.end <= time;
  if (ended_ && over) return std::nullopt;
  return Cue{entry.prompt, ended_, ended_ ? entry.end : kOpen};
}

}  // namespace wan
