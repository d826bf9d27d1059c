// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Two passes: the largest value of each channel, then scaling, rounding and transposition through shared
// memory.
#include "ops/cuda/quantize_values.h"

#include <cuda_fp8.h>

#include "ops/row_limits.h"

namespace wan {

namespace {

constexpr int kHeadDim = 128, kTileKeys = 64, kThreads = 256;

/// Where the first of a tile's values lies, and how many tokens it has.
struct Tile {
  __device__ Tile(const ValueRows &rows)
      : first(static_cast<int>(blockIdx.x) * kTileKeys),
        count(min(kTileKeys, rows.tokens - first)),
        data(rows.data + blockIdx.z * rows.batch_stride + first * rows.token_stride + blockIdx.y * kHeadDim) {
  }

  __device__ float value(const ValueRows &rows, int token, int channel) const {
    const float bias = rows.bias ? __bfloat162float(rows.bias[blockIdx.y * kHeadDim + channel]) : 0.0f;
    return __bfloat162float(data[token * rows.token_stride + channel]) + bias;
  }

  const int first, count;
  const __nv_bfloat16 *const data;
};

/// The largest magnitudes as bits: those of floats that are not negative are ordered as integers.
__global__ void __launch_bounds__(kHeadDim) channel_max_kernel(ValueRows rows, int *largest) {
  const Tile tile(rows);
  float max = 0;
  for (int token = 0; token < tile.count; ++token)
    max = fmaxf(max, fabsf(tile.value(rows, token, static_cast<int>(threadIdx.x))));
  const int64_t head = blockIdx.z * gridDim.y + blockIdx.y;
  atomicMax(largest + head * kHeadDim + threadIdx.x, __float_as_int(max));
}

__global__ void scale_kernel(float *scale, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) scale[i] = fmaxf(scale[i], kLeastRowMax) / kLargestE4m3;
}

/// Which of 16 keys stands in a column: the order in which a thread of the attention kernel has their
/// weights.
__device__ int key_of_column(int column) {
  const int quad = column / 4, i = column % 4;
  return i < 2 ? 2 * quad + i : 8 + 2 * quad + i - 2;
}

__global__ void __launch_bounds__(kThreads)
    transpose_kernel(ValueRows rows, const float *scale, int64_t columns, __nv_fp8_e4m3 *out) {
  __shared__ __nv_fp8_storage_t turned[kHeadDim][kTileKeys + 4];
  const Tile tile(rows);
  const int64_t head = blockIdx.z * gridDim.y + blockIdx.y;
  const int channel = static_cast<int>(threadIdx.x) % kHeadDim;
  const float factor = 1 / scale[head * kHeadDim + channel];
  for (int column = static_cast<int>(threadIdx.x) / kHeadDim; column < kTileKeys;
       column += kThreads / kHeadDim) {
    const int token = column / 16 * 16 + key_of_column(column % 16);
    const float value = token < tile.count ? tile.value(rows, token, channel) : 0.0f;
    turned[channel][column] = __nv_cvt_float_to_fp8(value * factor, __NV_SATFINITE, __NV_E4M3);
  }
  __syncthreads();
  constexpr int kWord = 4, kWords = kTileKeys / kWord;
  for (int i = static_cast<int>(threadIdx.x); i < kHeadDim * kWords; i += kThreads) {
    const int row = i / kWords, column = i % kWords * kWord;
    if (tile.first + column < columns)
      *reinterpret_cast<uint32_t *>(out + (head * kHeadDim + row) * columns + tile.first + column) =
          *reinterpret_cast<const uint32_t *>(&turned[row][column]);
  }
}

}  // namespace

cudaError_t launch_quantize_values(const ValueRows &rows, int batch, int heads, int64_t columns, void *out,
                                   float *scale, cudaStream_t stream) {
  const int channels = batch * heads * kHeadDim;
  const dim3 grid(static_cast<unsigned>((columns + kTileKeys - 1) / kTileKeys),
                  static_cast<unsigned>(heads), static_cast<unsigned>(batch));
  const cudaError_t cleared =
      cudaMemsetAsync(scale, 0, static_cast<size_t>(channels) * sizeof(float), stream);
  if (cleared != cudaSuccess) return cleared;
  channel_max_kernel<<<grid, kHeadDim, 0, stream>>>(rows, reinterpret_cast<int *>(scale));
  scale_kernel<<<static_cast<unsigned>((channels + 255) / 256), 256, 0, stream>>>(scale, channels);
  transpose_kernel<<<grid, kThreads, 0, stream>>>(rows, scale, columns, static_cast<__nv_fp8_e4m3 *>(out));
  return cudaGetLastError();
}

}  // namespace wan
