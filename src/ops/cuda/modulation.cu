// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block of threads for each token: one pass over memory. Products and sums are rounded where the kernels of
// LibTorch in the reference round them, so that results differ only by the order of the sums.
#include "ops/cuda/modulation.h"

#include "ops/cuda/row.cuh"

namespace wan {

namespace {

__device__ const float *row_of(const RowFactor &factor, const RowSegments &segments, int64_t tokens) {
  const int64_t batch = blockIdx.x / tokens;
  const float *row = factor.data + batch * factor.batch_stride;
  if (segments.count == 1) return row;
  const int64_t token = blockIdx.x - batch * tokens;
#pragma unroll
  for (int i = 1; i < kMaxSegments; ++i)
    if (i < segments.count && token >= segments.starts[i]) row += factor.segment_stride;
  return row;
}

template <int kVectors, bool kModulates>
__global__ void __launch_bounds__(kRowThreads)
    layer_norm_kernel(const NarrowVector *x, Rows rows, RowSegments segments, RowFactor scale_rows,
                      RowFactor shift_rows, float eps, void *out, float *out_scale) {
  const float *const scales = row_of(scale_rows, segments, rows.tokens);
  const float *const shifts = row_of(shift_rows, segments, rows.tokens);
  const int count = rows.channels / kRowVector;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * count;
  Row<kVectors> row(x + start, count);
  const float mean = row.mean([](float value) { return value; });
  const float variance = row.mean([mean](float value) { return (value - mean) * (value - mean); });
  const float factor = rsqrtf(variance + eps);
  row.for_each([&](int i, int vector) {
    WideVector wide = widen(row.vectors[i]);
    const WideVector scale = load_wide(scales + vector * kRowVector);
    const WideVector shift = load_wide(shifts + vector * kRowVector);
#pragma unroll
    for (int c = 0; c < kRowVector; ++c) {
      const float normed = factor * (wide.values[c] - mean);
      wide.values[c] = kModulates ? __fadd_rn(__fmul_rn(normed, scale.values[c] + 1.0f), shift.values[c])
                                  : fmaf(normed, scale.values[c], shift.values[c]);
    }
    row.vectors[i] = round_to_narrow(wide);
  });
  row.write(out, out_scale);
}

/// bias and gate may be null.
__global__ void __launch_bounds__(kRowThreads)
    gated_residual_kernel(const NarrowVector *x, const NarrowVector *branch, const NarrowVector *bias,
                          Rows rows, RowSegments segments, RowFactor gate_rows, NarrowVector *out) {
  const float *const gates = gate_rows.data ? row_of(gate_rows, segments, rows.tokens) : nullptr;
  const int count = rows.channels / kRowVector;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * count;
  for (int vector = static_cast<int>(threadIdx.x); vector < count; vector += kRowThreads) {
    WideVector sum = widen(x[start + vector]);
    WideVector addend = widen(branch[start + vector]), gate{};
    if (bias) addend = sum_of(addend, widen(bias[vector]));
    if (gates) gate = load_wide(gates + vector * kRowVector);
#pragma unroll
    for (int c = 0; c < kRowVector; ++c) {
      if (gates) addend.values[c] = __fmul_rn(addend.values[c], gate.values[c]);
      sum.values[c] = __fadd_rn(sum.values[c], addend.values[c]);
    }
    out[start + vector] = round_to_narrow(sum);
  }
}

unsigned blocks(const Rows &rows) {
  return static_cast<unsigned>(rows.batch * rows.tokens);
}

}  // namespace

cudaError_t launch_layer_norm(const __nv_bfloat16 *x, const Rows &rows, const RowSegments &segments,
                              const RowFactor &scale, const RowFactor &shift, bool modulates, float eps,
                              void *out, float *out_scale, cudaStream_t stream) {
  const auto *const from = reinterpret_cast<const NarrowVector *>(x);
  return for_row_size(rows.channels, [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    const auto kernel = modulates ? layer_norm_kernel<kVectors, true> : layer_norm_kernel<kVectors, false>;
    kernel<<<blocks(rows), kRowThreads, 0, stream>>>(from, rows, segments, scale, shift, eps, out, out_scale);
  });
}

cudaError_t launch_gated_residual(const __nv_bfloat16 *x, const __nv_bfloat16 *branch,
                                  const __nv_bfloat16 *bias, const Rows &rows, const RowSegments &segments,
                                  const RowFactor &gate, __nv_bfloat16 *out, cudaStream_t stream) {
  gated_residual_kernel<<<blocks(rows), kRowThreads, 0, stream>>>(
      reinterpret_cast<const NarrowVector *>(x), reinterpret_cast<const NarrowVector *>(branch),
      reinterpret_cast<const NarrowVector *>(bias), rows, segments, gate,
      reinterpret_cast<NarrowVector *>(out));
  return cudaGetLastError();
}

}  // namespace wan
