// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>

#include "ops/kernels.h"

namespace wan {

namespace {

constexpr double kSmallestLength = 1e-12;

/// In lanes, so that it is vectorised without any licence to reorder sums.
float sum_of_squares(const float *x, int64_t count) {
  std::array<float, 16> lanes{};
  const int64_t whole = count / 16 * 16;
  for (int64_t i = 0; i < whole; i += 16)
    for (int64_t lane = 0; lane < 16; ++lane) lanes[static_cast<size_t>(lane)] += x[i + lane] * x[i + lane];
  float sum = 0;
  for (int64_t i = whole; i < count; ++i) sum += x[i] * x[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

void normalize_pixel(const float *x, const float *gamma, int64_t channels, float *out) {
  const float length = std::max(std::sqrt(sum_of_squares(x, channels)), static_cast<float>(kSmallestLength));
  const float scale = std::sqrt(static_cast<float>(channels)) / length;
  for (int64_t c = 0; c < channels; ++c) out[c] = x[c] * scale * gamma[c];
}

/// One pass over memory instead of one for each step: SiLU finds its block of pixels in the cache.
at::Tensor rms_norm_cpu(const at::Tensor &x, const at::Tensor &gamma, bool silu) {
  constexpr int64_t kBlock = 16384;  // values
  const int64_t channels = x.size(-1), pixels = x.numel() / channels;
  const int64_t block = std::max<int64_t>(1, kBlock / channels);
  const at::Tensor in = x.contiguous(), factors = gamma.contiguous();
  const at::Tensor out = at::empty({pixels, channels}, x.options());
  const float *const from = in.const_data_ptr<float>(), *const by = factors.const_data_ptr<float>();
  float *const to = out.mutable_data_ptr<float>();
  at::parallel_for(0, (pixels + block - 1) / block, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * block, count = std::min(block, pixels - first);
      for (int64_t pixel = first; pixel < first + count; ++pixel)
        normalize_pixel(from + pixel * channels, by, channels, to + pixel * channels);
      at::Tensor part = out.narrow(0, first, count);
      if (silu) at::silu_(part);
    }
  });
  return out.view(x.sizes());
}

at::Tensor rms_norm_reference(const at::Tensor &x, const at::Tensor &gamma, bool silu) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor length = at::norm(wide, 2, {-1}, /*keepdim=*/true).clamp_min(kSmallestLength);
  at::Tensor y = (wide / length).mul_(std::sqrt(static_cast<double>(x.size(-1)))).mul_(gamma);
  if (silu) at::silu_(y);
  return y.to(x.scalar_type());
}

/// The CPU has a kernel for float32, CUDA for bfloat16 where 16 bytes hold no parts of two pixels.
bool has_kernel(const at::Tensor &x) {
  if (x.is_cpu()) return x.scalar_type() == at::kFloat;
  return x.scalar_type() == at::kBFloat16 && x.size(-1) % 8 == 0;
}

}  // namespace

TORCH_LIBRARY_IMPL(wan, CPU, library) {
  kernels::RmsNorm::implement(library, rms_norm_cpu);
}

at::Tensor rms_norm(const at::Tensor &x, const at::Tensor &gamma, bool silu) {
  if (!has_kernel(x)) return rms_norm_reference(x, gamma, silu);
  return kernels::RmsNorm::call(x, gamma, silu);
}

}  // namespace wan
