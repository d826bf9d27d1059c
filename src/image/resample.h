// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Resizing of 8-bit pictures as Pillow's Image.resize() does it, to the last bit.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

enum class Resampling { kBicubic, kLanczos };

/// What Pillow 13.0.0 makes of a picture without transparency; versions before 12 differ where it becomes
/// smaller (they never begin with the columns). picture: [H, W, C] uint8 in host memory. Returns [height,
/// width, C] uint8.
at::Tensor resize(const at::Tensor &picture, int64_t height, int64_t width, Resampling filter);

}  // namespace wan
