// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Clips that fade into each other: on their way out of the decoder, before they become pixels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace wan {

/// What one clip does at its two seams. Frames are [1, 3, T, H, W] float32, on the device of the decoder.
class Crossfade {
 public:
  /// Of a clip of `clip_frames` frames, the first `fade_frames` are mixed with `before`, the frames that the
  /// clip before kept, unless these are of another size or number; and the last `fade_frames` are kept if
  /// `followed`, which is asked once, says that there is another clip. 0: a cut at either end.
  Crossfade(int64_t fade_frames, int64_t clip_frames, at::Tensor before, std::function<bool()> followed)
      : fade_frames_(fade_frames),
        tail_begin_(clip_frames - fade_frames),
        before_(std::move(before)),
        followed_(std::move(followed)) {}

  /// Takes the next frames of the clip and returns those that leave, which may be none (an undefined tensor).
  /// Frames that do not fade leave as they came, without a copy.
  at::Tensor operator()(const at::Tensor &frames);

  /// The frames that were kept, when all went through; undefined if there are none.
  at::Tensor tail() const;

 private:
  at::Tensor fade_in(const at::Tensor &frames, int64_t first) const;
  at::Tensor keep_tail(const at::Tensor &frames, int64_t first);
  bool is_followed();

  const int64_t fade_frames_, tail_begin_;
  const at::Tensor before_;
  const std::function<bool()> followed_;
  std::optional<bool> answer_;  // of followed_
  std::vector<at::Tensor> kept_;
  int64_t frames_ = 0;  // so far
};

}  // namespace wan
