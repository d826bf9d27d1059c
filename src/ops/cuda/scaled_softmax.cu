// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Softmax of long rows: a block keeps its row in shared memory, so that the scores are read once.
#include "ops/cuda/scaled_softmax.h"

#include <cub/block/block_reduce.cuh>

namespace wan {

namespace {

constexpr int kThreads = 512;

struct alignas(8) FourNarrow {
  __nv_bfloat162 low, high;
};

struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

/// The reduced value, for all threads.
template <typename Operation>
__device__ float reduce(float value, Operation operation) {
  using BlockReduce = cub::BlockReduce<float, kThreads>;
  __shared__ typename BlockReduce::TempStorage storage;
  __shared__ float result;
  const float reduced = BlockReduce(storage).Reduce(value, operation);
  if (threadIdx.x == 0) result = reduced;
  __syncthreads();
  return result;
}

__global__ void __launch_bounds__(kThreads)
    scaled_softmax_kernel(const float4 *scores, float scale_log2, int vectors, FourNarrow *out) {
  extern __shared__ float4 row[];
  const int64_t start = static_cast<int64_t>(blockIdx.x) * vectors;
  float largest = -INFINITY;
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    const float4 v = scores[start + i];
    row[i] = v;
    largest = fmaxf(fmaxf(largest, fmaxf(v.x, v.y)), fmaxf(v.z, v.w));
  }
  // The scale is positive, so that the largest score is the largest product, too.
  const float offset = reduce(largest, Maximum()) * scale_log2;
  float sum = 0;
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    const float4 v = row[i];
    const float4 e = {exp2f(v.x * scale_log2 - offset), exp2f(v.y * scale_log2 - offset),
                      exp2f(v.z * scale_log2 - offset), exp2f(v.w * scale_log2 - offset)};
    row[i] = e;
    sum += e.x + e.y + e.z + e.w;
  }
  const float factor = 1.0f / reduce(sum, Sum());
  for (int i = threadIdx.x; i < vectors; i += kThreads) {
    const float4 e = row[i];
    out[start + i] = {__floats2bfloat162_rn(e.x * factor, e.y * factor),
                      __floats2bfloat162_rn(e.z * factor, e.w * factor)};
  }
}

}  // namespace

cudaError_t launch_scaled_softmax(const float *scores, float scale, int64_t rows, int columns,
                                  __nv_bfloat16 *out, cudaStream_t stream) {
  const int bytes = columns * static_cast<int>(sizeof(float));
  const cudaError_t ready =
      cudaFuncSetAttribute(scaled_softmax_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (ready != cudaSuccess) return ready;
  constexpr float kLog2E = 1.44269504f;
  scaled_softmax_kernel<<<static_cast<unsigned>(rows), kThreads, bytes, stream>>>(
      reinterpret_cast<const float4 *>(scores), scale * kLog2E, columns / 4,
      reinterpret_cast<FourNarrow *>(out));
  return cudaGetLastError();
}

}  // namespace wan
