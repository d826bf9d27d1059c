// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From the decoder's frames to pixels: an operation with a CPU and a CUDA kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include "wan/engine.h"

namespace wan {

/// frames: [1, 3, T, H, W] float32 in [-1, 1], RGB. out: uint8 [T, layout.size], contiguous; each row becomes
/// one frame in the layout's format. RGB is round(255 * x), as Diffusers' PIL output; YUV is computed from
/// the float values with 8-bit limited or full range, chroma the mean of 2x2 pixels. Bytes that belong to no
/// pixel (padding) are left alone.
void frames_to_pixels_out(const at::Tensor &out, const at::Tensor &frames, const WanPixelLayout &layout);

/// The same into a new tensor, whose padding is 0.
at::Tensor frames_to_pixels(const at::Tensor &frames, const WanPixelLayout &layout);

}  // namespace wan
