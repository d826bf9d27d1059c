// SPDX-License-Identifier: LGPL-2.1-or-later
//
// RMS norm over the channels and SiLU in one pass over memory: a few lanes share a pixel and keep it in
// registers.
#include "ops/cuda/rms_norm_silu.h"

#include <algorithm>

namespace wan {

namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // channels in 16 bytes

struct alignas(16) Channels {
  __nv_bfloat162 pairs[kVector / 2];
};

/// kLanes share a pixel; each has kVectors vectors, kLanes apart.
template <int kLanes, int kVectors>
__global__ void rms_norm_silu_kernel(const Channels *x, const float *gamma, int64_t pixels, int vectors,
                                     bool silu, Channels *out) {
  const int64_t pixel = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  const int lane = threadIdx.x % kLanes;
  // Every lane takes part in the sum below.
  const bool inside = pixel < pixels;
  const Channels *in = x + (inside ? pixel : 0) * vectors;
  float2 values[kVectors][kVector / 2];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int vector = lane + i * kLanes;
    const Channels loaded = vector < vectors ? in[vector] : Channels{};
#pragma unroll
    for (int pair = 0; pair < kVector / 2; ++pair) {
      values[i][pair] = __bfloat1622float2(loaded.pairs[pair]);
      sum += values[i][pair].x * values[i][pair].x + values[i][pair].y * values[i][pair].y;
    }
  }
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  const float factor = sqrtf(static_cast<float>(vectors * kVector)) / fmaxf(sqrtf(sum), 1e-12f);
  const auto finish = [&](float value, float scale) {
    const float normed = value * factor * scale;
    return silu ? __fdividef(normed, 1.0f + __expf(-normed)) : normed;
  };
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const int vector = lane + i * kLanes;
    if (!inside || vector >= vectors) continue;
    Channels result;
#pragma unroll
    for (int pair = 0; pair < kVector / 2; ++pair) {
      const float2 scale = reinterpret_cast<const float2 *>(gamma)[vector * (kVector / 2) + pair];
      result.pairs[pair] =
          __floats2bfloat162_rn(finish(values[i][pair].x, scale.x), finish(values[i][pair].y, scale.y));
    }
    out[pixel * vectors + vector] = result;
  }
}

template <int kLanes, int kVectors>
cudaError_t launch(const __nv_bfloat16 *x, const float *gamma, int64_t pixels, int vectors, bool silu,
                   __nv_bfloat16 *out, cudaStream_t stream) {
  const int64_t blocks = (pixels * kLanes + kThreads - 1) / kThreads;
  rms_norm_silu_kernel<kLanes, kVectors><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      reinterpret_cast<const Channels *>(x), gamma, pixels, vectors, silu, reinterpret_cast<Channels *>(out));
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_rms_norm_silu(const __nv_bfloat16 *x, const float *gamma, int64_t pixels, int channels,
                                 bool silu, __nv_bfloat16 *out, cudaStream_t stream) {
  const int vectors = channels / kVector;
  // Three vectors a lane for 96, 192 and 384 channels.
  if (vectors <= 12) return launch<4, 3>(x, gamma, pixels, vectors, silu, out, stream);
  if (vectors <= 24) return launch<8, 3>(x, gamma, pixels, vectors, silu, out, stream);
  if (vectors <= 48) return launch<16, 3>(x, gamma, pixels, vectors, silu, out, stream);
  return launch<32, 4>(x, gamma, pixels, vectors, silu, out, stream);
}

}  // namespace wan
