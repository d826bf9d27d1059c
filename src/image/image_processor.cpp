// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/image_processor.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "error.h"
#include "image/resample.h"

namespace wan {

namespace {

/// So that a picture of few pixels does not take gigabytes when its short edge is enlarged.
constexpr int64_t kMostAspect = 1000;

/// In values of 8 bits.
at::Tensor channels(const std::array<double, 3> &values) {
  return at::tensor(at::ArrayRef<double>(values), at::kFloat).mul_(255).view({1, 3, 1, 1});
}

}  // namespace

at::Tensor vae_pixels(const at::Tensor &picture, int64_t height, int64_t width) {
  const at::Tensor pixels = resize(picture, height, width, Resampling::kLanczos).to(at::kFloat);
  return pixels.div_(255).mul_(2).sub_(1).permute({2, 0, 1}).unsqueeze(1).unsqueeze(0).contiguous();
}

at::Tensor clip_crop(const at::Tensor &picture, int64_t size) {
  const int64_t height = picture.size(0), width = picture.size(1), edge = std::min(height, width);
  if (std::max(height, width) > kMostAspect * edge)
    throw invalid("The picture is " + std::to_string(width) + "x" + std::to_string(height) +
                  ": its long side must be at most " + std::to_string(kMostAspect) + " times its short one");
  const int64_t rows = size * height / edge, columns = size * width / edge;
  // With whole numbers, as torchvision does it; in float32, or by Pillow, other values come out.
  const at::Tensor resized =
      at::_upsample_bicubic2d_aa(picture.permute({2, 0, 1}).unsqueeze(0), {rows, columns},
                                 /*align_corners=*/false);
  return resized.narrow(2, (rows - size) / 2, size).narrow(3, (columns - size) / 2, size);
}

at::Tensor clip_pixels(const at::Tensor &picture, int64_t size) {
  // OpenAI's statistics of its pictures.
  const at::Tensor mean = channels({0.48145466, 0.4578275, 0.40821073});
  const at::Tensor deviation = channels({0.26862954, 0.26130258, 0.27577711});
  return clip_crop(picture, size).to(at::kFloat).sub_(mean).div_(deviation).contiguous();
}

}  // namespace wan
