// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "ops/kernel_set.h"
#include "ops/kernels.h"
#include "ops/linear.h"

namespace wan {

namespace {

/// Below, the kernels for Hopper are not worth their start.
constexpr int64_t kFewKeys = 1024;

constexpr int64_t kHeadDim = 128;

/// Whether the kernels for Hopper are worth it.
bool takes_shape(int64_t num_keys, int64_t head_dim) {
  return num_keys > kFewKeys && head_dim == kHeadDim;
}

bool takes_heads(const at::Tensor &x) {
  return x.scalar_type() == at::kBFloat16 && x.stride(3) == 1 && x.stride(2) == kHeadDim &&
         x.stride(1) % 8 == 0 && x.stride(0) % 8 == 0 &&
         reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

constexpr int64_t kScoresBytes = int64_t{256} << 20;

/// softmax(q k^T / sqrt(d)) of [B, L, d], computed in float32.
at::Tensor weights(const at::Tensor &q, const at::Tensor &k) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  if (q.scalar_type() != at::kBFloat16) return at::softmax(at::bmm(q, k.transpose(1, 2)).mul_(scale), -1);
  // The product is not rounded: its accumulators are float32 anyway.
  return kernels::ScaledSoftmax::call(at::bmm(q, k.transpose(1, 2), at::kFloat), scale);
}

}  // namespace

at::Tensor attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v) {
  if (takes_shape(k.size(1), k.size(3)) && has_sm90_kernels(q.device()) && takes_heads(q) && takes_heads(k) &&
      takes_heads(v))
    return kernels::AttentionSm90::call(q, k, v);
  return at::scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
      .transpose(1, 2);
}

bool has_fp8_attention(at::Device device, int64_t num_keys, int64_t head_dim) {
  return takes_shape(num_keys, head_dim) && (device.is_cpu() || has_sm90_kernels(device));
}

at::Tensor fp8_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                         const at::Tensor &v_bias) {
  if (q.is_cpu()) {
    const at::Tensor values = v_bias.defined() ? v + v_bias.view({v.size(2), v.size(3)}) : v;
    // A scale for each channel of each head: its tokens are a row.
    const Activations rows = quantize_rows(values.permute({0, 2, 3, 1}).flatten(1, 2).contiguous());
    const at::Tensor rounded = rows.values.to(at::kFloat) * rows.scale.view({v.size(0), -1, 1});
    return attention(q.to(at::kFloat), k.to(at::kFloat),
                     rounded.unflatten(1, {v.size(2), v.size(3)}).permute({0, 3, 1, 2}))
        .to(v.scalar_type());
  }
  return kernels::Fp8AttentionSm90::call(q, k, v, optional(v_bias));
}

at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v) {
  if (q.is_cpu()) return at::scaled_dot_product_attention(q, k, v);
  const int64_t batch = q.size(0), tokens = q.size(2);
  const int64_t block =
      std::max<int64_t>(1, kScoresBytes / (batch * tokens * static_cast<int64_t>(sizeof(float))));
  const at::Tensor keys = k.squeeze(1), values = v.squeeze(1);
  std::vector<at::Tensor> out;
  for (const at::Tensor &queries : q.squeeze(1).split(block, 1))
    out.push_back(at::bmm(weights(queries, keys), values));
  return at::cat(out, 1).unsqueeze(1);
}

}  // namespace wan
