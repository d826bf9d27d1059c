// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block of threads for each token: one pass over memory. As in the reference, the norm is rounded before
// the rotation, and there the products before the sum.
#include "ops/cuda/rotary_norm.h"

#include "ops/cuda/row.cuh"

namespace wan {

namespace {

__device__ WideVector normalize(WideVector x, const WideVector &weight, float factor) {
#pragma unroll
  for (int c = 0; c < kRowVector; ++c) x.values[c] = weight.values[c] * (factor * x.values[c]);
  return widen(round_to_narrow(x));
}

__device__ WideVector rotate(const WideVector &x, const float4 &cos, const float4 &sin) {
  const float cosines[] = {cos.x, cos.y, cos.z, cos.w}, sines[] = {sin.x, sin.y, sin.z, sin.w};
  WideVector turned;
#pragma unroll
  for (int pair = 0; pair < kRowVector / 2; ++pair) {
    const float a = x.values[2 * pair], b = x.values[2 * pair + 1], c = cosines[pair], s = sines[pair];
    turned.values[2 * pair] = __fsub_rn(__fmul_rn(a, c), __fmul_rn(b, s));
    turned.values[2 * pair + 1] = __fadd_rn(__fmul_rn(a, s), __fmul_rn(b, c));
  }
  return turned;
}

/// A float4 of the tables belongs to a vector of channels.
template <int kVectors, bool kRotates, bool kQuantizes>
__global__ void __launch_bounds__(kRowThreads)
    rms_norm_kernel(const NarrowVector *x, const NarrowVector *bias, Rows rows, const NarrowVector *weight,
                    RotaryTables tables, float eps, const float *center, void *out) {
  const int count = rows.channels / kRowVector;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * count;
  const int head_vectors = tables.head_channels / kRowVector;
  const int64_t angles = blockIdx.x % rows.tokens * head_vectors;
  Row<kVectors> row(x + start, count);
  if (bias) row.add(bias);
  const float factor = rsqrtf(row.mean([](float value) { return value * value; }) + eps);
  row.for_each([&](int i, int vector) {
    WideVector normed = normalize(widen(row.vectors[i]), widen(weight[vector]), factor);
    if constexpr (kRotates) {
      const int64_t angle = angles + vector % head_vectors;
      normed = rotate(normed, reinterpret_cast<const float4 *>(tables.cos)[angle],
                      reinterpret_cast<const float4 *>(tables.sin)[angle]);
    }
    if constexpr (kQuantizes) {
      if (center) normed = difference_of(normed, load_wide(center + vector * kRowVector));
      static_cast<QuantizedVector *>(out)[start + vector] = quantize(normed, 1);
    } else {
      static_cast<NarrowVector *>(out)[start + vector] = round_to_narrow(normed);
    }
  });
}

}  // namespace

cudaError_t launch_rms_norm(const __nv_bfloat16 *x, const __nv_bfloat16 *bias, const Rows &rows,
                            const __nv_bfloat16 *weight, const RotaryTables &tables, float eps,
                            bool quantizes, const float *center, void *out, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows.batch * rows.tokens);
  return for_row_size(rows.channels, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    const auto kernel = !tables.cos ? rms_norm_kernel<kVectors, false, false>
                        : quantizes ? rms_norm_kernel<kVectors, true, true>
                                    : rms_norm_kernel<kVectors, true, false>;
    kernel<<<blocks, kRowThreads, 0, stream>>>(
        reinterpret_cast<const NarrowVector *>(x), reinterpret_cast<const NarrowVector *>(bias), rows,
        reinterpret_cast<const NarrowVector *>(weight), tables, eps, center, out);
  });
}

}  // namespace wan
