// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/video.h"

#include <ATen/ATen.h>

#include "vae/tiles.h"

namespace wan {

at::Tensor Video::part(int64_t begin, int64_t count) const {
  const int64_t known = first_.size(2), end = begin + count;
  if (end <= known) return first_.narrow(2, begin, count);
  at::Tensor frames = at::zeros({1, 3, count, height(), width()}, first_.options());
  if (begin < known) frames.narrow(2, 0, known - begin).copy_(first_.narrow(2, begin, known - begin));
  if (last_.defined() && end == frames_) frames.narrow(2, count - 1, 1).copy_(last_);
  return frames;
}

Video Video::window(int64_t y, int64_t x, int64_t height, int64_t width) const {
  const auto cut = [&](const at::Tensor &frames) {
    return frames.defined() ? wan::window(wan::window(frames, 3, y, height), 4, x, width) : frames;
  };
  return {cut(first_), cut(last_), frames_};
}

}  // namespace wan
