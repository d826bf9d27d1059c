// SPDX-License-Identifier: LGPL-2.1-or-later
//
// WanPixelLayout as the list of numbers that an operator of LibTorch can take.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "wan/engine.h"

namespace wan {

inline std::vector<int64_t> pack_layout(const WanPixelLayout &layout) {
  const auto offset = [&](int plane) { return static_cast<int64_t>(layout.offset[plane]); };
  return {layout.format,    layout.matrix,    layout.full_range, layout.width,
          layout.height,    offset(0),        offset(1),         offset(2),
          layout.stride[0], layout.stride[1], layout.stride[2],  static_cast<int64_t>(layout.size)};
}

inline WanPixelLayout unpack_layout(at::IntArrayRef packed) {
  TORCH_CHECK(packed.size() == 12, "a pixel layout has 12 numbers");
  const auto size = [&](size_t i) { return static_cast<size_t>(packed[i]); };
  const auto number = [&](size_t i) { return static_cast<int32_t>(packed[i]); };
  return {static_cast<WanPixelFormat>(packed[0]),
          static_cast<WanColorMatrix>(packed[1]),
          packed[2] != 0,
          number(3),
          number(4),
          {size(5), size(6), size(7)},
          {number(8), number(9), number(10)},
          size(11)};
}

/// Whether frames_to_pixels may write frames of the layout to `out`.
inline void check_pixels(const at::Tensor &out, const at::Tensor &frames, const WanPixelLayout &layout) {
  TORCH_CHECK(frames.dim() == 5 && frames.size(0) == 1 && frames.size(1) == 3 &&
                  frames.size(3) == layout.height && frames.size(4) == layout.width &&
                  frames.scalar_type() == at::kFloat,
              "frames are float32 [1, 3, T, H, W]");
  TORCH_CHECK(out.dim() == 2 && out.size(0) == frames.size(2) &&
                  out.size(1) == static_cast<int64_t>(layout.size) && out.scalar_type() == at::kByte &&
                  out.is_contiguous() && out.device() == frames.device(),
              "pixels are uint8 [T, layout.size], contiguous");
}

}  // namespace wan
