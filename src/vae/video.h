// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the encoder takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace wan {

/// Frames of [1, 3, F, H, W] float32 in [-1, 1].
class Video {
 public:
  // Implicit: a tensor of frames is a video.
  Video(const at::Tensor &frames) : first_(frames), frames_(frames.size(2)) {}  // NOLINT
  /// Its ends, [1, 3, 1, H, W], and grey between them, which is made when it is asked for: a video of 81
  /// frames of 1280x720 would take 0.9 GB. last: undefined where it ends in grey. frames: at least 2 with a
  /// last one.
  Video(const at::Tensor &first, const at::Tensor &last, int64_t frames)
      : first_(first), last_(last), frames_(frames) {}

  int64_t frames() const { return frames_; }
  int64_t height() const { return first_.size(3); }
  int64_t width() const { return first_.size(4); }

  /// Whether all of these frames lie between the ends.
  bool is_grey(int64_t begin, int64_t count) const {
    return begin >= first_.size(2) && begin + count <= frames_ - (last_.defined() ? 1 : 0);
  }
  /// [1, 3, count, H, W].
  at::Tensor part(int64_t begin, int64_t count) const;
  /// The rows and columns of each frame from (y, x) on, at most so many.
  Video window(int64_t y, int64_t x, int64_t height, int64_t width) const;

 private:
  at::Tensor first_, last_;  // first_: all frames that are known from the first on
  int64_t frames_;
};

}  // namespace wan
