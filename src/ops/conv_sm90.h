// The way from ops/conv.h to the kernel for Hopper GPUs, ops/cuda/conv_sm90.h, through LibTorch's dispatcher.
#pragma once

#include "ops/conv.h"

namespace wan::sm90 {

/// As in ops/cuda/conv_sm90.h.
enum class ConvKind { kCausal3x3x3, kUpsample2x, kDoubleFrames };

/// Whether the kernel runs on the weight's device in this dtype and takes such channels. weight: [Cout, Cin, ...].
bool serves(const at::Tensor &weight, ConvKind kind, at::ScalarType dtype);

/// weight: [groups, Cout, Cin, kt, k, k] in float32. Returns it in bfloat16 as [groups, kt, Cin / 32, k, k, Cout,
/// 32], where each row of 32 channels is swizzled for the tensor cores.
at::Tensor pack(const at::Tensor &weight);

/// frames, num_outputs: as for causal_conv3d(). A kernel for 3 channels gives float32.
ConvResult conv(ConvKind kind, const Frames &frames, int64_t num_outputs, const ConvWeight &weight,
                const Epilogue &epilogue);

}  // namespace wan::sm90
