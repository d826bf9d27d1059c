// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/kept_frames.h"

#include <algorithm>
#include <utility>

namespace wan {

namespace {

// Streams that take turns each keep theirs; one that was stopped leaves its own behind, which must not add
// up.
constexpr size_t kMaxStreams = 4;

}  // namespace

at::Tensor KeptFrames::find(uint64_t stream) const {
  const auto found = std::ranges::find(kept_, stream, &Kept::stream);
  return found == kept_.end() ? at::Tensor() : found->frames;
}

at::Tensor KeptFrames::take(uint64_t stream) {
  const auto found = std::ranges::find(kept_, stream, &Kept::stream);
  if (found == kept_.end()) return {};
  at::Tensor frames = std::move(found->frames);
  kept_.erase(found);
  return frames;
}

void KeptFrames::keep(uint64_t stream, at::Tensor frames) {
  if (!frames.defined()) return;
  take(stream);
  if (kept_.size() == kMaxStreams) kept_.pop_front();
  kept_.push_back({stream, std::move(frames)});
}

}  // namespace wan
