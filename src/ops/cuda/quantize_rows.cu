// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/cuda/quantize_rows.h"

#include "ops/cuda/row.cuh"

namespace wan {

namespace {

/// GELU by tanh: x (1 + tanh(u)) / 2 = x / (1 + exp(-2 u)).
__device__ float gelu(float x) {
  constexpr float kBeta = 0.7978845608f, kKappa = 0.044715f;  // sqrt(2 / pi)
  return __fdividef(x, 1 + __expf(-2 * kBeta * (x + kKappa * x * x * x)));
}

template <int kVectors, int kThreads, bool kGelu>
__global__ void __launch_bounds__(kThreads)
    quantize_rows_kernel(const NarrowVector *x, const NarrowVector *bias, int count, void *out,
                         float *scale) {
  Row<kVectors, kThreads> row(x + static_cast<int64_t>(blockIdx.x) * count, count);
  if (bias) row.add(bias);
  if constexpr (kGelu)
    row.for_each([&](int i, int) {
      WideVector wide = widen(row.vectors[i]);
#pragma unroll
      for (float &value : wide.values) value = gelu(value);
      row.vectors[i] = round_to_narrow(wide);
    });
  row.write(out, scale);
}

}  // namespace

cudaError_t launch_quantize_rows(const __nv_bfloat16 *x, const __nv_bfloat16 *bias, int64_t rows,
                                 int channels, bool applies_gelu, void *out, float *scale,
                                 cudaStream_t stream) {
  const auto launch = [&](auto kernel, int threads) {
    kernel<<<static_cast<unsigned>(rows), threads, 0, stream>>>(reinterpret_cast<const NarrowVector *>(x),
                                                                reinterpret_cast<const NarrowVector *>(bias),
                                                                channels / kRowVector, out, scale);
  };
  if (channels <= kMaxRowChannels)
    return for_row_size(channels, [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value;
      launch(applies_gelu ? quantize_rows_kernel<kVectors, kRowThreads, true>
                          : quantize_rows_kernel<kVectors, kRowThreads, false>,
             kRowThreads);
    });
  launch(applies_gelu ? quantize_rows_kernel<kMaxWideRowVectors, kWideRowThreads, true>
                      : quantize_rows_kernel<kMaxWideRowVectors, kWideRowThreads, false>,
         kWideRowThreads);
  return cudaGetLastError();
}

}  // namespace wan
