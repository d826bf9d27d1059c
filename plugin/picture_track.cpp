// SPDX-License-Identifier: LGPL-2.1-or-later
#include "picture_track.h"

#include <algorithm>
#include <utility>

namespace wan {

bool PictureTrack::attach() {
  const std::lock_guard lock(mutex_);
  return !std::exchange(attached_, true);
}

void PictureTrack::detach() {
  reset();
  const std::lock_guard lock(mutex_);
  attached_ = false;
  changed_.notify_all();
}

bool PictureTrack::is_attached() const {
  const std::lock_guard lock(mutex_);
  return attached_;
}

void PictureTrack::set_linked(bool linked) {
  const std::lock_guard lock(mutex_);
  linked_ = linked;
  silent_ &= !linked;  // what was not linked has not been silent
  changed_.notify_all();
}

bool PictureTrack::is_fed() const {
  const std::lock_guard lock(mutex_);
  return attached_ && linked_;
}

bool PictureTrack::is_ended() const {
  const std::lock_guard lock(mutex_);
  return (ended_ || !linked_) && entries_.empty();
}

void PictureTrack::set_live(bool live) {
  const std::lock_guard lock(mutex_);
  live_ = live;
}

bool PictureTrack::add(Sample sample, uint64_t start) {
  std::unique_lock lock(mutex_);
  silent_ = false;
  if (live_) entries_.clear();
  changed_.wait(lock, [&] { return flushing_ || !attached_ || entries_.size() <= kMaxWaiting; });
  if (flushing_ || !attached_) return false;
  const auto behind = [](uint64_t start, const Entry &other) { return start < other.start; };
  entries_.insert(std::upper_bound(entries_.begin(), entries_.end(), start, behind),
                  {std::move(sample), start});
  changed_.notify_all();
  return true;
}

void PictureTrack::advance(uint64_t time) {
  const std::lock_guard lock(mutex_);
  silent_ = false;
  advanced_ = std::max(advanced_, time);
  changed_.notify_all();
}

void PictureTrack::set_ended(bool ended) {
  const std::lock_guard lock(mutex_);
  ended_ = ended;
  changed_.notify_all();
}

void PictureTrack::set_flushing(bool flushing) {
  const std::lock_guard lock(mutex_);
  flushing_ = flushing;
  changed_.notify_all();
}

void PictureTrack::reset() {
  const std::lock_guard lock(mutex_);
  entries_.clear();
  advanced_ = 0;
  ended_ = silent_ = false;
  changed_.notify_all();
}

void PictureTrack::set_silent() {
  const std::lock_guard lock(mutex_);
  silent_ = true;
}

PictureTrack::Sample PictureTrack::earliest() const {
  const std::lock_guard lock(mutex_);
  return entries_.empty() ? nullptr : entries_.front().sample;
}

void PictureTrack::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

// Drops what is over at `time`, since another one has begun.
void PictureTrack::drop_before(uint64_t time) {
  while (entries_.size() > 1 && entries_[1].start <= time) {
    entries_.pop_front();
    changed_.notify_all();
  }
}

// Whether no picture that is still to come can be the one at `time`. A live source takes what there is.
bool PictureTrack::is_known(uint64_t time) const {
  return !attached_ || !linked_ || ended_ || silent_ || advanced_ > time || (live_ && !entries_.empty()) ||
         (!entries_.empty() && entries_.back().start > time);
}

PictureTrack::Sample PictureTrack::at(uint64_t time, std::chrono::milliseconds patience,
                                      const std::function<bool()> &given_up) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, patience, [&] {
    drop_before(time);  // makes room for who sends what is waited for
    return is_known(time) || given_up();
  });
  const bool shown = !entries_.empty() && (live_ || entries_.front().start <= time);
  return shown ? entries_.front().sample : nullptr;
}

}  // namespace wan
