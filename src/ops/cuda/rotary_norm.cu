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
template <int kVectors>
__global__ void __launch_bounds__(kRowThreads)
    rotary_rms_norm_kernel(const NarrowVector *x, Rows rows, const NarrowVector *weight, int head_vectors,
                           const float4 *cos, const float4 *sin, float eps, NarrowVector *out) {
  const int count = rows.channels / kRowVector;
  const int64_t start = static_cast<int64_t>(blockIdx.x) * count;
  const int64_t angles = blockIdx.x % rows.tokens * head_vectors;
  Row<kVectors> row(x + start, count);
  const float factor = rsqrtf(row.mean([](float value) { return value * value; }) + eps);
  row.for_each([&](int i, int vector) {
    const WideVector normed = normalize(widen(row.vectors[i]), widen(weight[vector]), factor);
    const int64_t angle = angles + vector % head_vectors;
    out[start + vector] = round_to_narrow(rotate(normed, cos[angle], sin[angle]));
  });
}

}  // namespace

cudaError_t launch_rotary_rms_norm(const __nv_bfloat16 *x, const Rows &rows, const __nv_bfloat16 *weight,
                                   int head_channels, const float *cos, const float *sin, float eps,
                                   __nv_bfloat16 *out, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(rows.batch * rows.tokens);
  return for_row_size(rows.channels, [&](auto vectors) {
    rotary_rms_norm_kernel<decltype(vectors)::value><<<blocks, kRowThreads, 0, stream>>>(
        reinterpret_cast<const NarrowVector *>(x), rows, reinterpret_cast<const NarrowVector *>(weight),
        head_channels / kRowVector, reinterpret_cast<const float4 *>(cos),
        reinterpret_cast<const float4 *>(sin), eps, reinterpret_cast<NarrowVector *>(out));
  });
}

}  // namespace wan
