// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The convolution kernel of all GPUs (ops/cuda/conv_sm80.cuh) on the CPU. Without LibTorch and CUDA's
// headers, since no source needs both.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/conv_limits.h"

namespace wan::emulation {

/// As wan::Conv in ops/cuda/conv.h; all bfloat16 but for bias, gamma and planes.
struct EmulatedConv {
  ConvKind kind;
  int height, width, in_channels, out_channels, num_outputs;
  std::vector<const void *> frames;
  const void *weight;
  const float *bias;
  const void *residual = nullptr;
  const float *gamma = nullptr;
  void *out = nullptr, *activated = nullptr;
  float *planes = nullptr;
  int64_t plane_stride = 0;
};

/// blocks: of the GPU, among which the tiles are dealt out. seed: of the order in which warps run.
void run(const EmulatedConv &conv, unsigned blocks, unsigned seed);

}  // namespace wan::emulation
