// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/wan_transformer_3d.h"

#include <ATen/ATen.h>

#include <cmath>

#include "device.h"
#include "ops/attention.h"
#include "ops/modulation.h"
#include "ops/rotary_norm.h"

namespace wan {

namespace {

/// As the checkpoint stores it, if that is in e4m3.
QuantizedWeight load_weight(const Weights &weights, at::IntArrayRef shape, WanQuantization quantization) {
  if (quantization == WAN_QUANTIZATION_NONE) return {weights("weight", shape), {}};
  if (const std::optional<ScaledFp8> stored = weights.fp8("weight", shape))
    return {stored->weight, stored->scale.expand({shape[0], 1}).contiguous().view(shape[0])};
  return quantize_weight(weights("weight", shape));
}

}  // namespace

Linear::Linear(const Weights &weights, int64_t in, int64_t out, WanQuantization quantization)
    : Linear(weights("bias", {out}), load_weight(weights, {out, in}, quantization)) {}

Product Linear::product(const Activations &x) const {
  if (quantized()) return {quantized_product(x, weight_, scale_, bias_.scalar_type()), bias_};
  return {at::linear(x.values, weight_, bias_), {}};
}

Activations Linear::gelu(const Activations &x) const {
  if (quantized()) return quantize_rows(product(x), /*applies_gelu=*/true);
  return gelu_linear(x.values, weight_, bias_);
}

WanAttention::WanAttention(const TransformerConfig &config, const Weights &weights,
                           WanQuantization quantization)
    : num_heads_(config.num_attention_heads),
      eps_(config.eps),
      to_q_(weights / "to_q", config.inner_dim(), config.inner_dim(), quantization),
      to_k_(weights / "to_k", config.inner_dim(), config.inner_dim(), quantization),
      to_v_(weights / "to_v", config.inner_dim(), config.inner_dim(), quantization),
      to_out_(weights / "to_out" / 0, config.inner_dim(), config.inner_dim(), quantization),
      norm_q_(weights("norm_q.weight", {config.inner_dim()})),
      norm_k_(weights("norm_k.weight", {config.inner_dim()})) {}

at::Tensor WanAttention::heads(const at::Tensor &x) const {
  return x.unflatten(-1, {num_heads_, -1});
}

WanAttention::KeyValue WanAttention::key_value(const at::Tensor &x) const {
  const Activations input = to_k_.input(x);
  return {heads(heads_rms_norm(to_k_.product(input), norm_k_, eps_)), heads(to_v_.product(input).sum())};
}

Product WanAttention::project(const at::Tensor &attended) const {
  return to_out_.product(to_out_.input(attended.flatten(2)));
}

Product WanAttention::self_attention(const Activations &x, const RotaryEmbedding &rotary) const {
  const at::Tensor &cos = rotary.cos, &sin = rotary.sin;
  if (quantized() && has_fp8_attention(x.values.device(), x.values.size(1), x.values.size(2) / num_heads_)) {
    const at::Tensor query = fp8_rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_);
    const at::Tensor key = fp8_rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_, /*centers=*/true);
    const Product value = to_v_.product(x);
    return project(fp8_attention(query, key, heads(value.values), value.bias));
  }
  const at::Tensor query = rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_);
  const at::Tensor key = rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_);
  return project(attention(query, key, heads(to_v_.product(x).sum())));
}

Product WanAttention::cross_attention(const Activations &x, const KeyValue &text) const {
  const at::Tensor query = heads(heads_rms_norm(to_q_.product(x), norm_q_, eps_));
  return project(attention(query, text.key, text.value));
}

WanTransformerBlock::WanTransformerBlock(const TransformerConfig &config, const Weights &weights,
                                         WanQuantization quantization)
    : eps_(config.eps),
      scale_shift_table_(weights("scale_shift_table", {1, 6, config.inner_dim()})),
      attn1_(config, weights / "attn1", quantization),
      attn2_(config, weights / "attn2", quantization),
      norm2_weight_(weights("norm2.weight", {config.inner_dim()})),
      norm2_bias_(weights("norm2.bias", {config.inner_dim()})),
      ffn_in_(weights / "ffn.net.0.proj", config.inner_dim(), config.ffn_dim, quantization),
      ffn_out_(weights / "ffn.net.2", config.ffn_dim, config.inner_dim(), quantization) {}

at::Tensor WanTransformerBlock::operator()(const at::Tensor &x, const WanAttention::KeyValue &text,
                                           const at::Tensor &timestep, const RotaryEmbedding &rotary) const {
  const std::vector<at::Tensor> modulation = (scale_shift_table_ + timestep.to(at::kFloat)).chunk(6, 1);
  const at::Tensor &shift_attention = modulation[0], &scale_attention = modulation[1];
  const at::Tensor &gate_attention = modulation[2], &shift_ffn = modulation[3];
  const at::Tensor &scale_ffn = modulation[4], &gate_ffn = modulation[5];

  const bool quantizes = attn1_.quantized();
  const Activations attention_input = modulated_norm(x, shift_attention, scale_attention, eps_, quantizes);
  at::Tensor y = gated_residual(x, attn1_.self_attention(attention_input, rotary), gate_attention);

  y = residual(y, attn2_.cross_attention(affine_norm(y, norm2_weight_, norm2_bias_, eps_, quantizes), text));

  const Activations hidden = ffn_in_.gelu(modulated_norm(y, shift_ffn, scale_ffn, eps_, quantizes));
  return gated_residual(y, ffn_out_.product(hidden), gate_ffn);
}

const std::set<std::string> WanTransformer3DModel::kKeepInFp32 = {"time_embedder", "scale_shift_table",
                                                                  "norm1", "norm2", "norm3"};

WanTransformer3DModel::WanTransformer3DModel(const TransformerConfig &config, const Weights &weights,
                                             WanQuantization quantization, std::shared_ptr<BlockSlots> slots)
    : config_(config),
      dtype_(weights.dtype()),
      patch_weight_(weights("patch_embedding.weight", {config.inner_dim(), config.in_channels, 1,
                                                       config.patch_height, config.patch_width})),
      patch_bias_(weights("patch_embedding.bias", {config.inner_dim()})),
      time_in_(weights / "condition_embedder.time_embedder.linear_1", config.freq_dim, config.inner_dim()),
      time_out_(weights / "condition_embedder.time_embedder.linear_2", config.inner_dim(),
                config.inner_dim()),
      time_proj_(weights / "condition_embedder.time_proj", config.inner_dim(), 6 * config.inner_dim()),
      text_in_(weights / "condition_embedder.text_embedder.linear_1", config.text_dim, config.inner_dim()),
      text_out_(weights / "condition_embedder.text_embedder.linear_2", config.inner_dim(),
                config.inner_dim()),
      blocks_(std::make_unique<BlockStore>(std::move(slots))),
      scale_shift_table_(weights("scale_shift_table", {1, 2, config.inner_dim()})),
      proj_out_(weights / "proj_out", config.inner_dim(),
                config.out_channels * config.patch_height * config.patch_width) {
  for (int64_t i = 0; i < config.num_layers; ++i)
    blocks_->add(WanTransformerBlock(config, weights / "blocks" / i, quantization));
}

WanTransformer3DModel::TextContext WanTransformer3DModel::encode_text(const at::Tensor &text) const {
  return {text_out_(at::gelu(text_in_(text.to(dtype_)), "tanh")),
          std::vector<WanAttention::KeyValue>(blocks_->size())};
}

RotaryEmbedding WanTransformer3DModel::rotary(int64_t frames, int64_t height, int64_t width) const {
  return rotary_embedding(config_.attention_head_dim, frames, height / config_.patch_height,
                          width / config_.patch_width, patch_weight_.device());
}

at::Tensor WanTransformer3DModel::patchify(const at::Tensor &latents) const {
  const at::Tensor tokens = at::conv3d(latents.to(dtype_), patch_weight_, patch_bias_,
                                       /*stride=*/{1, config_.patch_height, config_.patch_width});
  return tokens.flatten(2).transpose(1, 2).contiguous();
}

/// The channel is the fastest index of a token's features.
at::Tensor WanTransformer3DModel::unpatchify(const at::Tensor &tokens, at::IntArrayRef latents_shape) const {
  const int64_t batch = latents_shape[0], frames = latents_shape[2];
  const int64_t height = latents_shape[3], width = latents_shape[4];
  return tokens
      .reshape({batch, frames, height / config_.patch_height, width / config_.patch_width,
                config_.patch_height, config_.patch_width, config_.out_channels})
      .permute({0, 6, 1, 2, 4, 3, 5})
      .reshape({batch, config_.out_channels, frames, height, width});
}

/// Sinusoid (cosines first) and its two-layer embedding: [1, D], rounded to the weights' dtype.
at::Tensor WanTransformer3DModel::time_embedding(double timestep) const {
  const int64_t half = config_.freq_dim / 2;
  const at::Tensor frequency =
      at::exp(at::arange(half, at::kFloat) * -std::log(10000.0) / static_cast<double>(half));
  const at::Tensor angle = frequency * at::scalar_tensor(timestep, at::kFloat);
  const at::Tensor sinusoid = at::cat({angle.cos(), angle.sin()}).unsqueeze(0).to(patch_weight_.device());
  return time_out_(at::silu(time_in_(sinusoid))).to(dtype_);
}

at::Tensor WanTransformer3DModel::operator()(const at::Tensor &latents, double timestep, TextContext &text,
                                             const RotaryEmbedding &rotary, const RunContext &context,
                                             StepCache *cache) const {
  const at::Tensor time = time_embedding(timestep);
  const at::Tensor modulation = time_proj_(at::silu(time)).unflatten(1, {6, -1});
  at::Tensor x = patchify(latents);
  const at::Tensor tokens = cache ? x : at::Tensor();
  LaunchWindow window(x.device());
  for (size_t i = 0; i < blocks_->size(); ++i) {
    context.check();
    const WanTransformerBlock &block = blocks_->use(i);
    WanAttention::KeyValue &block_text = text.blocks[i];
    if (!block_text.key.defined()) block_text = block.cross_attention().key_value(text.embedded);
    x = block(x, block_text, modulation, rotary);
    blocks_->done(i);
    window.advance();
    if (i == 0 && cache && cache->skips_rest(tokens, x)) break;
  }
  if (cache) x = cache->finish(x);
  const std::vector<at::Tensor> head = (scale_shift_table_ + time.unsqueeze(1)).chunk(2, 1);
  x = proj_out_(modulated_norm(x, /*shift=*/head[0], /*scale=*/head[1], config_.eps).values);
  return unpatchify(x, latents.sizes());
}

}  // namespace wan
