// SPDX-License-Identifier: LGPL-2.1-or-later
//
// CUDA kernel of dequantize: a thread makes eight values of one group, which have their scale in common, and
// writes them together.
#include "ops/cuda/dequantize.h"

#include "ops/ggml_blocks.h"

namespace wan {

namespace {

constexpr int kThreads = 256, kValues = 8;

template <typename Out>
struct alignas(16) Values {
  Out values[kValues];
};

__device__ void round_to(float value, float &out) {
  out = value;
}
__device__ void round_to(float value, __nv_bfloat16 &out) {
  out = __float2bfloat16_rn(value);
}

template <typename Block, typename Out>
__global__ void __launch_bounds__(kThreads) dequantize_kernel(const Block *blocks, int64_t count, Out *out) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kValues;
  if (first >= count) return;
  const Block &block = blocks[first / Block::kElements];
  const int begin = static_cast<int>(first % Block::kElements);
  const ggml::Scale scale = block.scale(begin / Block::kGroup);
  Values<Out> values;
#pragma unroll
  for (int i = 0; i < kValues; ++i) round_to(scale(block.quant(begin + i)), values.values[i]);
  *reinterpret_cast<Values<Out> *>(out + first) = values;
}

template <typename Out>
cudaError_t launch(GgmlType type, const void *blocks, int64_t count, Out *out, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const int64_t grid = (count + kThreads * kValues - 1) / (kThreads * kValues);
  ggml::with_block(type, [=](auto block) {
    dequantize_kernel<<<static_cast<unsigned>(grid), kThreads, 0, stream>>>(
        static_cast<const decltype(block) *>(blocks), count, out);
  });
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_dequantize(GgmlType type, const void *blocks, int64_t count, float *out,
                              cudaStream_t stream) {
  return launch(type, blocks, count, out, stream);
}

cudaError_t launch_dequantize(GgmlType type, const void *blocks, int64_t count, __nv_bfloat16 *out,
                              cudaStream_t stream) {
  return launch(type, blocks, count, out, stream);
}

}  // namespace wan
