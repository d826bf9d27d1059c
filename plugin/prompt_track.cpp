// SPDX-License-Identifier: LGPL-2.1-or-later
#include "prompt_track.h"

#include <algorithm>
#include <utility>

namespace wan {

bool PromptTrack::attach() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(attached_, true);
}

void PromptTrack::detach() {
  reset();
  const std::lock_guard lock(mutex_);
  attached_ = false;
  changed_.notify_all();
}

bool PromptTrack::is_attached() const {
  const std::lock_guard lock(mutex_);
  return attached_;
}

void PromptTrack::set_linked(bool linked) {
  const std::lock_guard lock(mutex_);
  linked_ = linked;
  changed_.notify_all();
}

bool PromptTrack::wait_for_room(std::unique_lock<std::mutex> &lock) {
  changed_.wait(lock, [&] { return flushing_ || !attached_ || has_room(); });
  return !flushing_ && attached_;
}

bool PromptTrack::add(std::string prompt, uint64_t start, uint64_t duration) {
  std::unique_lock lock(mutex_);
  if (!wait_for_room(lock)) return false;
  const uint64_t end = duration == kOpen ? kOpen : start + std::min(duration, kOpen - 1 - start);
  insert({std::move(prompt), start, end, false});
  changed_.notify_all();
  return true;
}

bool PromptTrack::add_now(std::string prompt) {
  std::unique_lock lock(mutex_);
  if (!wait_for_room(lock)) return false;
  bytes_ += prompt.size();
  untimed_.push_back(std::move(prompt));
  changed_.notify_all();
  return true;
}

void PromptTrack::advance(uint64_t time) {
  const std::lock_guard lock(mutex_);
  advanced_ = std::max(advanced_, time);
  changed_.notify_all();
}

void PromptTrack::set_ended(bool ended) {
  const std::lock_guard lock(mutex_);
  ended_ = ended;
  changed_.notify_all();
}

void PromptTrack::set_flushing(bool flushing) {
  const std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

void PromptTrack::reset() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
  untimed_.clear();
  before_.clear();
  bytes_ = 0;
  advanced_ = 0;
  ended_ = false;
  changed_.notify_all();
}

void PromptTrack::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

// Behind those of the same start: the later one counts.
void PromptTrack::insert(Entry entry) {
  bytes_ += entry.prompt.size();
  const auto behind = [](uint64_t start, const Entry &other) { return start < other.start; };
  entries_.insert(std::upper_bound(entries_.begin(), entries_.end(), entry.start, behind), std::move(entry));
}

void PromptTrack::drop_first() {
  before_ = std::move(entries_.front().prompt);
  bytes_ -= before_.size();
  entries_.pop_front();
  changed_.notify_all();
}

// Drops what is over at `time`, since another one has begun.
void PromptTrack::drop_before(uint64_t time) {
  while (entries_.size() > 1 && entries_[1].start <= time) drop_first();
}

// Whether no cue that is still to come can change what at() says.
bool PromptTrack::is_known(uint64_t time, uint64_t end) const {
  return is_over() || !untimed_.empty() || advanced_ >= end ||
         (!entries_.empty() && entries_.back().start > time);
}

// A full track makes room, or who sends could never send what is waited for. Else it keeps what a clip that
// is skipped meanwhile would need again.
bool PromptTrack::wait(uint64_t time, uint64_t end, const std::function<bool()> &given_up) {
  std::unique_lock lock(mutex_);
  bool known = false;
  changed_.wait(lock, [&] {
    if (!has_room()) drop_before(time);
    return (known = !attached_ || is_known(time, end)) || given_up();
  });
  return known;
}

// Gives untimed prompts a time.
void PromptTrack::take_untimed(uint64_t time, bool latest) {
  do {
    bytes_ -= untimed_.front().size();
    insert({std::move(untimed_.front()), time, kOpen, false});
    untimed_.pop_front();
  } while (latest && !untimed_.empty());
}

std::optional<PromptTrack::Cue> PromptTrack::at(uint64_t time, bool latest) {
  const std::lock_guard lock(mutex_);
  if (!attached_) return std::nullopt;
  if (!untimed_.empty()) take_untimed(time, latest);
  drop_before(time);
  const bool over = is_over() && untimed_.empty();
  if (entries_.empty()) return over ? std::nullopt : std::optional(Cue{"", false, kOpen});

  Entry &entry = entries_.front();
  if (entry.start > time) return Cue{"", false, entry.start};
  if (entries_.size() > 1) return Cue{entry.prompt, false, entries_[1].start};
  // A last cue without a duration is good for one clip.
  const bool shown = entry.end == kOpen ? std::exchange(entry.used, true) : entry.end <= time;
  if (over && shown) return std::nullopt;
  return Cue{entry.prompt, over, over ? entry.end : kOpen};
}

bool PromptTrack::replace(const std::string &prompt, uint64_t time) {
  const std::lock_guard lock(mutex_);
  if (entries_.empty() || entries_.front().start > time) return false;
  if (entries_.front().prompt != prompt || before_ == prompt) return false;
  bytes_ += before_.size() - prompt.size();
  entries_.front().prompt = before_;
  entries_.front().used = false;
  return true;
}

}  // namespace wan
