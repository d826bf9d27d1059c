// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/umt5_encoder.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace wan {

namespace {

/// transformers' gelu_new. Operation by operation, since in bfloat16 each of them rounds.
at::Tensor gelu_new(const at::Tensor &x) {
  const at::Tensor inner = (x + at::pow(x, 3.0) * 0.044715) * std::sqrt(2.0 / M_PI);
  return x * 0.5 * (at::tanh(inner) + 1.0);
}

/// UMT5Attention._relative_position_bucket for every pair of positions: [L, L] (query, key).
at::Tensor relative_position_buckets(int64_t length, int64_t num_buckets, int64_t max_distance) {
  const at::Tensor position = at::arange(length);
  const at::Tensor relative = position.unsqueeze(0) - position.unsqueeze(1);
  const int64_t half = num_buckets / 2, exact = half / 2;
  const at::Tensor distance = relative.abs();
  const at::Tensor logarithm = at::log(distance.to(at::kFloat) / static_cast<double>(exact)) /
                               std::log(static_cast<double>(max_distance) / static_cast<double>(exact)) *
                               static_cast<double>(half - exact);
  const at::Tensor far = (logarithm.to(at::kLong) + exact).clamp_max(half - 1);
  return at::where(distance < exact, distance, far) + (relative > 0).to(at::kLong) * half;
}

}  // namespace

UMT5EncoderModel::UMT5EncoderModel(const TextEncoderConfig &config, const Weights &weights)
    : config_(config),
      shared_(weights("shared.weight", {config.vocab_size, config.d_model})),
      final_layer_norm_(weights("encoder.final_layer_norm.weight", {config.d_model})) {
  const int64_t inner = config.num_heads * config.d_kv;
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const Weights attention = weights / "encoder.block" / i / "layer.0";
    const Weights feed_forward = weights / "encoder.block" / i / "layer.1";
    Block block;
    block.attention_norm = attention("layer_norm.weight", {config.d_model});
    block.q = attention("SelfAttention.q.weight", {inner, config.d_model});
    block.k = attention("SelfAttention.k.weight", {inner, config.d_model});
    block.v = attention("SelfAttention.v.weight", {inner, config.d_model});
    block.o = attention("SelfAttention.o.weight", {config.d_model, inner});
    block.relative_attention_bias = attention("SelfAttention.relative_attention_bias.weight",
                                              {config.relative_attention_num_buckets, config.num_heads});
    block.feed_forward_norm = feed_forward("layer_norm.weight", {config.d_model});
    block.wi_0 = feed_forward("DenseReluDense.wi_0.weight", {config.d_ff, config.d_model});
    block.wi_1 = feed_forward("DenseReluDense.wi_1.weight", {config.d_ff, config.d_model});
    block.wo = feed_forward("DenseReluDense.wo.weight", {config.d_model, config.d_ff});
    blocks_.push_back(std::move(block));
  }
}

/// UMT5LayerNorm: the normalised value is rounded to the weight's dtype before the weight multiplies it.
at::Tensor UMT5EncoderModel::norm(const at::Tensor &x, const at::Tensor &weight) const {
  const at::Tensor variance = x.to(at::kFloat).pow(2).mean(-1, /*keepdim=*/true);
  return weight * (x * at::rsqrt(variance + config_.layer_norm_epsilon)).to(weight.scalar_type());
}

at::Tensor UMT5EncoderModel::attention(const Block &block, const at::Tensor &x, const at::Tensor &buckets,
                                       const at::Tensor &mask_bias) const {
  const auto heads = [&](const at::Tensor &weight) {
    return at::linear(x, weight).unflatten(-1, {config_.num_heads, config_.d_kv}).transpose(1, 2);
  };
  const at::Tensor position_bias =
      at::embedding(block.relative_attention_bias, buckets).permute({2, 0, 1}).unsqueeze(0);
  // Scores are not scaled by 1/sqrt(d_kv). A fused attention, as Transformers 5 has it.
  const at::Tensor out = at::scaled_dot_product_attention(heads(block.q), heads(block.k), heads(block.v),
                                                          position_bias + mask_bias, /*dropout_p=*/0.0,
                                                          /*is_causal=*/false, /*scale=*/1.0);
  return at::linear(out.transpose(1, 2).flatten(2), block.o);
}

at::Tensor UMT5EncoderModel::feed_forward(const Block &block, const at::Tensor &x) const {
  return at::linear(gelu_new(at::linear(x, block.wi_0)) * at::linear(x, block.wi_1), block.wo);
}

at::Tensor UMT5EncoderModel::operator()(const at::Tensor &ids, const at::Tensor &mask,
                                        const RunContext &context) const {
  const at::Tensor buckets = relative_position_buckets(ids.size(1), config_.relative_attention_num_buckets,
                                                       config_.relative_attention_max_distance)
                                 .to(ids.device());
  at::Tensor x = at::embedding(shared_, ids);
  const double lowest = x.scalar_type() == at::kBFloat16
                            ? static_cast<double>(std::numeric_limits<c10::BFloat16>::lowest())
                            : static_cast<double>(std::numeric_limits<float>::lowest());
  const at::Tensor mask_bias =
      at::zeros_like(mask, x.options()).masked_fill(mask == 0, lowest).unsqueeze(1).unsqueeze(1);
  for (const Block &block : blocks_) {
    context.check();
    x = x + attention(block, norm(x, block.attention_norm), buckets, mask_bias);
    x = x + feed_forward(block, norm(x, block.feed_forward_norm));
  }
  return norm(x, final_layer_norm_);
}

}  // namespace wan
