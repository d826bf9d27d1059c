// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/frame_window.h"

#include <algorithm>
#include <numeric>
#include <ranges>

namespace wan {

std::vector<int64_t> RollingWindow::frames() const {
  std::vector<int64_t> numbers;
  for (const Frame &frame : kept_) numbers.push_back(frame.number);
  return numbers;
}

void RollingWindow::forget() {
  kept_.clear();
  offset_ = 0;
  pinned_ = {0, 0};
}

void RollingWindow::forget_before(int64_t start) {
  std::erase_if(kept_, [start](const Frame &frame) { return frame.number < start; });
}

/// Pinned frames are safe only when they have arrived right behind the sink; until then the window holds them
/// anyway.
int64_t RollingWindow::protected_frames() const {
  const auto behind_sink = static_cast<size_t>(sink_);
  const bool arrived =
      pinned_.frames > 0 && behind_sink < kept_.size() && kept_[behind_sink].number == pinned_.start;
  return sink_ + (arrived ? pinned_.frames : 0);
}

void RollingWindow::make_room(int64_t frames) {
  const int64_t leaving = static_cast<int64_t>(kept_.size()) + frames - window_;
  if (leaving <= 0) return;
  const auto first = kept_.begin() + protected_frames();
  kept_.erase(first, first + leaving);
}

int64_t RollingWindow::free_slot() const {
  int64_t slot = 0;
  while (std::ranges::find(kept_, slot, &Frame::slot) != kept_.end()) ++slot;
  return slot;
}

void RollingWindow::remember(int64_t number) {
  kept_.push_back({number, free_slot(), number + offset_});
}

int64_t RollingWindow::slot_of(int64_t number, size_t from) const {
  const auto found = std::ranges::find(kept_, number, &Frame::number);
  const bool writable = found != kept_.end() && static_cast<size_t>(found - kept_.begin()) >= from;
  return writable ? found->slot : KeyPlan::kNoSlot;
}

KeyPlan RollingWindow::plan(int64_t start, int64_t frames, size_t first_written) const {
  KeyPlan plan;
  const auto kept = static_cast<int64_t>(kept_.size());
  for (int64_t i = 0; i < frames; ++i) {
    plan.positions.push_back(static_cast<double>(relative_ ? kept - frames + i : start + i + offset_));
    plan.writes.push_back(slot_of(start + i, first_written));
  }
  for (int64_t place = 0; place < kept; ++place) {
    const Frame &frame = kept_[static_cast<size_t>(place)];
    plan.keys.push_back({frame.slot, static_cast<double>(relative_ ? place : frame.position)});
  }
  return plan;
}

KeyPlan RollingWindow::begin(int64_t start, int64_t frames) {
  const int64_t newest = kept_.empty() ? start - 1 : kept_.back().number;
  const int64_t entering = std::max<int64_t>(0, start + frames - 1 - newest);
  make_room(entering);
  for (int64_t number = start + frames - entering; number < start + frames; ++number) remember(number);
  return plan(start, frames, 0);
}

KeyPlan RollingWindow::recache(int64_t start, int64_t frames, bool replaces_sink) {
  if (replaces_sink) {
    for (size_t i = 0; i < kept_.size(); ++i) {
      kept_[i].number = start + static_cast<int64_t>(i);
      kept_[i].position = kept_[i].number + offset_;
    }
    return plan(start, frames, 0);
  }
  return plan(start, frames, start > 0 ? static_cast<size_t>(sink_) : 0);
}

void RollingForcingWindow::enter(int64_t start) {
  if (!kept_.empty() && kept_.back().start >= start) return;
  int64_t slot = static_cast<int64_t>(kept_.size()) * section_;
  if (slot + section_ > kept_frames_) {  // the oldest but the anchor makes room
    slot = kept_[1].slot;
    kept_.erase(kept_.begin() + 1);
  }
  kept_.push_back({start, slot});
}

void RollingForcingWindow::see(const Section &section, int64_t position, KeyPlan &plan) const {
  for (int64_t i = 0; i < section_; ++i)
    plan.keys.push_back({section.slot + i, static_cast<double>(position + i)});
}

/// What a pass writes: its first section to where that is remembered, the others behind all that is.
KeyPlan RollingForcingWindow::own(int64_t start, int64_t frames) const {
  KeyPlan plan;
  for (int64_t i = 0; i < frames; ++i) {
    plan.positions.push_back(static_cast<double>(start + i));
    plan.writes.push_back(i < section_ ? kept_.back().slot + i : kept_frames_ + i - section_);
  }
  return plan;
}

KeyPlan RollingForcingWindow::begin(int64_t start, int64_t frames) {
  enter(start);
  KeyPlan plan = own(start, frames);
  if (kept_.size() > 1) {
    const auto room = static_cast<size_t>(std::max<int64_t>(0, (attended_ - frames) / section_ - 1));
    const size_t between = kept_.size() - 2, working = std::min(room, between);
    see(kept_.front(), start - static_cast<int64_t>(working + 1) * section_, plan);
    for (size_t i = kept_.size() - 1 - working; i + 1 < kept_.size(); ++i)
      see(kept_[i], kept_[i].start, plan);
  }
  for (int64_t i = 0; i < frames; ++i)
    plan.keys.push_back({plan.writes[static_cast<size_t>(i)], plan.positions[static_cast<size_t>(i)]});
  return plan;
}

KeyPlan RollingForcingWindow::finish(int64_t start) {
  enter(start);
  KeyPlan plan = own(start, section_);
  const auto most = static_cast<size_t>(attended_ / section_);
  for (size_t i = kept_.size() - std::min(most, kept_.size()); i < kept_.size(); ++i)
    see(kept_[i], kept_[i].start, plan);
  return plan;
}

}  // namespace wan
