// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/crossfade.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace wan {

at::Tensor Crossfade::operator()(const at::Tensor &frames) {
  const int64_t first = frames_;
  frames_ += frames.size(2);
  return keep_tail(fade_in(frames, first), first);
}

at::Tensor Crossfade::tail() const {
  return kept_.empty() ? at::Tensor() : at::cat(kept_, 2);  // a copy: what is kept may be part of a chunk
}

/// Frame i of n is mixed at (i + 1) / (n + 1), so that neither clip is shown alone among the n.
at::Tensor Crossfade::fade_in(const at::Tensor &frames, int64_t first) const {
  if (first >= fade_frames_ || !before_.defined() || before_.size(2) != fade_frames_ ||
      before_.sizes().slice(3) != frames.sizes().slice(3))
    return frames;
  const int64_t count = std::min(frames.size(2), fade_frames_ - first);
  const at::Tensor share =
      (at::arange(first + 1, first + count + 1, frames.options()) / static_cast<double>(fade_frames_ + 1))
          .view({1, 1, count, 1, 1});
  const at::Tensor mixed = before_.narrow(2, first, count) * (1 - share) + frames.narrow(2, 0, count) * share;
  const int64_t rest = frames.size(2) - count;
  return rest ? at::cat({mixed, frames.narrow(2, count, rest)}, 2) : mixed;
}

at::Tensor Crossfade::keep_tail(const at::Tensor &frames, int64_t first) {
  const int64_t count = frames.size(2), leaving = std::clamp<int64_t>(tail_begin_ - first, 0, count);
  // A chunk is asked about as a whole: in two parts its frames would count as two chunks.
  if (leaving == count || !is_followed()) return frames;
  kept_.push_back(frames.narrow(2, leaving, count - leaving));
  return leaving ? frames.narrow(2, 0, leaving) : at::Tensor();
}

bool Crossfade::is_followed() {
  if (!answer_) answer_ = followed_();
  return *answer_;
}

}  // namespace wan
