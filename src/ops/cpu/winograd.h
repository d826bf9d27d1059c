// SPDX-License-Identifier: LGPL-2.1-or-later
//
// 3x3 convolutions on the CPU with 16 products where 36 would do: F(2x2, 3x3) of Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks" (2015).
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// Whether channels are many enough that the products outweigh the transforms.
bool winograd_pays(int64_t in, int64_t out);

/// weight: [Cout, K, 3, 3] float32. Returns [16, K, Cout].
at::Tensor winograd_weight(const at::Tensor &weight);

/// The 3x3 convolution, padded with zeros, of the channels of all frames, each [H, W, Cin], of which K are in
/// all. weight: [16, K, Cout], bias: [Cout]. Writes out, [H, W, Cout] contiguous.
void winograd_conv2d(at::TensorList frames, const at::Tensor &weight, const at::Tensor &bias,
                     const at::Tensor &out);

}  // namespace wan
