// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/cpu/rotate.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace wan {

namespace {

/// So many values are worth a thread.
constexpr int64_t kGrain = 16384;

void rotate_head(const float *x, const float *cos, const float *sin, int64_t pairs, float *out) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    out[2 * i] = a * cos[i] - b * sin[i];
    out[2 * i + 1] = a * sin[i] + b * cos[i];
  }
}

}  // namespace

void rotate_cpu(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, const at::Tensor &out) {
  const int64_t tokens = x.size(1), heads = x.size(2), channels = x.size(3), pairs = channels / 2;
  const float *const from = x.const_data_ptr<float>();
  const float *const cosines = cos.const_data_ptr<float>(), *const sines = sin.const_data_ptr<float>();
  float *const to = out.mutable_data_ptr<float>();
  at::parallel_for(
      0, tokens, std::max<int64_t>(1, kGrain / (heads * channels)), [&](int64_t begin, int64_t end) {
        for (int64_t token = begin; token < end; ++token)
          for (int64_t head = 0; head < heads; ++head) {
            const int64_t offset = (token * heads + head) * channels;
            rotate_head(from + offset, cosines + token * pairs, sines + token * pairs, pairs, to + offset);
          }
      });
}

}  // namespace wan
