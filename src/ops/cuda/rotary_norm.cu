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

/// angle: of a vector of channels, which has a float4 of each table.
__device__ WideVector rotate(const WideVector &x, const RotaryTables &tables, int64_t angle) {
  const float4 cos = reinterpret_cast<const float4 *>(tables.cos)[angle];
  const float4 sin = reinterpret_cast<const float4 *>(tables.sin)[angle];
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
    if constexpr (kRotates) normed = rotate(normed, tables, angles + vector % head_vectors);
    if constexpr (kQuantizes) {
      if (center) normed = difference_of(normed, load_wide(center + vector * kRowVector));
      static_cast<QuantizedVector *>(out)[start + vector] = quantize(normed, 1);
    } else {
      static_cast<NarrowVector *>(out)[start + vector] = round_to_narrow(normed);
    }
  });
}

__global__ void __launch_bounds__(kRowThreads)
    rotate_kernel(const NarrowVector *x, Rows rows, RotaryTables tables, NarrowVector *out) {
  const int count = rows.channels / kRowVector, head_vectors = tables.head_channels / kRowVector;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * count;
  const int64_t angles = blockIdx.x % rows.tokens * head_vectors;
  for (int vector = static_cast<int>(threadIdx.x); vector < count; vector += kRowThreads)
    out[start + vector] =
        round_to_narrow(rotate(widen(x[start + vector]), tables, angles + vector % head_vectors));
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

cudaError_t launch_rotate(const __nv_bfloat16 *x, const Rows &rows, const RotaryTables &tables,
                          __nv_bfloat16 *out, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows.batch * rows.tokens);
  rotate_kernel<<<blocks, kRowThreads, 0, stream>>>(reinterpret_cast<const NarrowVector *>(x), rows, tables,
                                                    reinterpret_cast<NarrowVector *>(out));
  return cudaGetLastError();
}

}  // namespace wan
