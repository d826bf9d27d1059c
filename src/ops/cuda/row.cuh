// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A row of activations in the registers of a block of threads.
#pragma once

#include <cuda_fp8.h>

#include <type_traits>

#include "ops/cuda/rows.h"

namespace wan {

struct alignas(16) NarrowVector {
  __nv_bfloat162 pairs[kRowVector / 2];
};
struct WideVector {
  float values[kRowVector];
};

__device__ inline WideVector widen(const NarrowVector &narrow) {
  WideVector wide;
#pragma unroll
  for (int pair = 0; pair < kRowVector / 2; ++pair) {
    const float2 values = __bfloat1622float2(narrow.pairs[pair]);
    wide.values[2 * pair] = values.x;
    wide.values[2 * pair + 1] = values.y;
  }
  return wide;
}

__device__ inline NarrowVector round_to_narrow(const WideVector &wide) {
  NarrowVector narrow;
#pragma unroll
  for (int pair = 0; pair < kRowVector / 2; ++pair)
    narrow.pairs[pair] = __floats2bfloat162_rn(wide.values[2 * pair], wide.values[2 * pair + 1]);
  return narrow;
}

__device__ inline WideVector load_wide(const float *from) {
  static_assert(kRowVector == 8);
  const float4 low = reinterpret_cast<const float4 *>(from)[0];
  const float4 high = reinterpret_cast<const float4 *>(from)[1];
  return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

__device__ inline WideVector sum_of(WideVector a, const WideVector &b) {
#pragma unroll
  for (int c = 0; c < kRowVector; ++c) a.values[c] += b.values[c];
  return a;
}

__device__ inline WideVector difference_of(WideVector a, const WideVector &b) {
#pragma unroll
  for (int c = 0; c < kRowVector; ++c) a.values[c] -= b.values[c];
  return a;
}

/// What `combine` makes of the values of all threads of the block.
template <int kThreads, typename Combine>
__device__ inline float block_reduce(float value, Combine combine) {
  constexpr int kWarps = kThreads / 32;
  __shared__ float partial[kWarps];
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2)
    value = combine(value, __shfl_xor_sync(~0u, value, distance));
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  value = partial[0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) value = combine(value, partial[warp]);
  __syncthreads();  // the next one writes there
  return value;
}

/// Eight numbers of e4m3.
struct alignas(8) QuantizedVector {
  __nv_fp8x2_storage_t pairs[kRowVector / 2];
};

__device__ inline QuantizedVector quantize(const WideVector &wide, float factor) {
  QuantizedVector quantized;
#pragma unroll
  for (int pair = 0; pair < kRowVector / 2; ++pair)
    quantized.pairs[pair] = __nv_cvt_float2_to_fp8x2(
        {wide.values[2 * pair] * factor, wide.values[2 * pair + 1] * factor}, __NV_SATFINITE, __NV_E4M3);
  return quantized;
}

/// A thread's part: every kThreads-th vector, of `count` in the row.
template <int kVectors, int kThreads = kRowThreads>
struct Row {
  NarrowVector vectors[kVectors];
  int count;

  __device__ Row(const NarrowVector *from, int count) : count(count) {
    for_each([&](int i, int vector) { vectors[i] = from[vector]; });
  }

  template <typename Function>
  __device__ void for_each(Function function) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int vector = static_cast<int>(threadIdx.x) + i * kThreads;
      if (vector < count) function(i, vector);
    }
  }

  /// The mean of a function of each value.
  template <typename Function>
  __device__ float mean(Function function) {
    float sum = 0;
    for_each([&](int i, int) {
      const WideVector wide = widen(vectors[i]);
#pragma unroll
      for (int c = 0; c < kRowVector; ++c) sum += function(wide.values[c]);
    });
    sum = block_reduce<kThreads>(sum, [](float a, float b) { return a + b; });
    return sum / static_cast<float>(count * kRowVector);
  }

  __device__ void add(const NarrowVector *addend) {
    for_each([&](int i, int vector) {
      vectors[i] = round_to_narrow(sum_of(widen(vectors[i]), widen(addend[vector])));
    });
  }

  /// In e4m3, with a scale for the row; or as it is, where scale is null.
  __device__ void write(void *out, float *scale) {
    const int64_t row = blockIdx.x, start = row * count;
    if (!scale) {
      for_each([&](int i, int vector) { static_cast<NarrowVector *>(out)[start + vector] = vectors[i]; });
      return;
    }
    float largest = 0;
    for_each([&](int i, int) {
      const WideVector wide = widen(vectors[i]);
#pragma unroll
      for (int c = 0; c < kRowVector; ++c) largest = fmaxf(largest, fabsf(wide.values[c]));
    });
    largest = block_reduce<kThreads>(largest, [](float a, float b) { return fmaxf(a, b); });
    const float factor = kLargestE4m3 / fmaxf(largest, kLeastRowMax);
    for_each([&](int i, int vector) {
      static_cast<QuantizedVector *>(out)[start + vector] = quantize(widen(vectors[i]), factor);
    });
    if (threadIdx.x == 0) scale[row] = fmaxf(largest, kLeastRowMax) / kLargestE4m3;
  }
};

/// Calls launch with the number of vectors that a thread needs, as a type. A14B has 5 (5120 channels), the 5B
/// model 3 (3072).
template <typename Launch>
cudaError_t for_row_size(int channels, Launch launch) {
  static_assert(kMaxRowVectors == 5);
  switch ((channels / kRowVector + kRowThreads - 1) / kRowThreads) {
    case 1:
      launch(std::integral_constant<int, 1>());
      break;
    case 2:
      launch(std::integral_constant<int, 2>());
      break;
    case 3:
      launch(std::integral_constant<int, 3>());
      break;
    default:
      launch(std::integral_constant<int, 5>());
  }
  return cudaGetLastError();
}

}  // namespace wan
