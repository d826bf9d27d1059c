// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way from ops/conv.h to the kernels for tensor cores, ops/cuda/conv.h, through LibTorch's dispatcher.
// All read the weights packed in the same way.
#pragma once

#include "ops/conv.h"
#include "ops/conv_limits.h"

namespace wan::packed {

/// Whether the kernels run on a device in this dtype and take such channels.
bool takes(int64_t in, int64_t out, at::ScalarType dtype, at::Device device);
/// The same of a weight [Cout, Cin, ...].
bool serves(const at::Tensor &weight, ConvKind kind, at::ScalarType dtype);

/// weight: [groups, Cout, Cin, kt, k, k], the groups being the phases of an upsampling or the two frames that
/// one becomes; bias: [groups * Cout], or [Cout] for phases. Both in float32. The packed weight is bfloat16
/// [groups, kt, Cin / 32, k, k, Cout, 32], where each row of 32 channels is swizzled for the tensor cores.
ConvWeight pack(const at::Tensor &weight, const at::Tensor &bias);

/// frames, num_outputs: as for causal_conv3d(). A convolution to 3 channels, the colours, is to have an empty
/// epilogue and gives float32.
ConvResult conv(ConvKind kind, const Frames &frames, int64_t num_outputs, const ConvWeight &weight,
                const Epilogue &epilogue);
/// Whether that is what the weight is for.
bool gives_colours(const ConvWeight &weight);

}  // namespace wan::packed
