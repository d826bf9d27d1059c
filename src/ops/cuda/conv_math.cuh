// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the epilogues of all convolution kernels compute.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "ops/cuda/ampere.cuh"

namespace wan {

__device__ inline uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t &>(pair);
}
__device__ inline float2 unpack(uint32_t word) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162 &>(word));
}

/// SiLU(2 x): x + x tanh(x).
__device__ inline float silu_of_twice(float x) {
  return fmaf(x, sm80::tanh_approximate(x), x);
}

/// The factor of an RMS norm: sqrt(channels) / max(length, 1e-12).
__device__ inline float norm_factor(float sum_of_squares, int channels) {
  return rsqrtf(fmaxf(sum_of_squares, 1e-24f)) * sqrtf(static_cast<float>(channels));
}

}  // namespace wan
