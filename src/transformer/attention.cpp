// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/attention.h"

#include <ATen/ATen.h>

#include "ops/attention.h"
#include "ops/rotary_norm.h"

namespace wan {

WanAttention::WanAttention(const TransformerConfig &config, const Weights &weights,
                           WanQuantization quantization, bool sees_pictures)
    : num_heads_(config.num_attention_heads),
      eps_(config.eps),
      to_q_(weights / "to_q", config.inner_dim(), config.inner_dim(), quantization),
      to_k_(weights / "to_k", config.inner_dim(), config.inner_dim(), quantization),
      to_v_(weights / "to_v", config.inner_dim(), config.inner_dim(), quantization),
      to_out_(weights / "to_out" / 0, config.inner_dim(), config.inner_dim(), quantization),
      norm_q_(weights("norm_q.weight", {config.inner_dim()})),
      norm_k_(weights("norm_k.weight", {config.inner_dim()})) {
  if (sees_pictures)
    added_ = {Linear(weights / "add_k_proj", config.inner_dim(), config.inner_dim(), quantization),
              Linear(weights / "add_v_proj", config.inner_dim(), config.inner_dim(), quantization),
              weights("norm_added_k.weight", {config.inner_dim()})};
}

at::Tensor WanAttention::heads(const at::Tensor &x) const {
  return x.unflatten(-1, {num_heads_, -1});
}

Product WanAttention::project(const at::Tensor &attended) const {
  return to_out_.product(to_out_.input(attended.flatten(2)));
}

bool WanAttention::attends_in_fp8(const Activations &x) const {
  return quantized() && has_fp8_attention(x.values.device(), x.values.size(1), x.values.size(2) / num_heads_);
}

WanAttention::Projected WanAttention::project_and_rotate(const Activations &x,
                                                         const RotaryEmbedding &rotary) const {
  const at::Tensor &cos = rotary.cos, &sin = rotary.sin;
  if (attends_in_fp8(x))
    return {fp8_rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_),
            fp8_rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_, /*centers=*/true),
            to_v_.product(x)};
  return {rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_),
          rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_), to_v_.product(x)};
}

at::Tensor WanAttention::attend(const Projected &own) const {
  if (own.key.scalar_type() == at::kFloat8_e4m3fn)
    return fp8_attention(own.query, own.key, heads(own.value.values), own.value.bias);
  return attention(own.query, own.key, heads(own.value.sum()));
}

/// Where keys are kept unrotated, their norm is rounded before they are turned, as all references do.
KeyValue WanAttention::extend(const Activations &x, const RotaryEmbedding &rotary,
                              const LayerCache &cache) const {
  const Product key = to_k_.product(x);
  const at::Tensor value = heads(to_v_.product(x).sum());
  if (!cache.cache->keeps_unrotated())
    return cache.cache->extend(cache.layer,
                               {rotary_rms_norm(key, norm_k_, rotary.cos, rotary.sin, eps_), value}, {});
  const at::Tensor unrotated = heads(heads_rms_norm(key, norm_k_, eps_)), rotated = at::empty_like(unrotated);
  rotate_heads(unrotated, rotary.cos, rotary.sin, rotated);
  return cache.cache->extend(cache.layer, {rotated, value}, unrotated);
}

void WanAttention::remember(const Activations &x, const RotaryEmbedding &rotary,
                            const LayerCache &cache) const {
  extend(x, rotary, cache);
}

/// Between the stages is the place of what makes other tokens of one's own: an exchange with other GPUs, and
/// a cache of earlier keys and values.
Product WanAttention::self_attention(const Activations &x, const RotaryEmbedding &rotary,
                                     const LayerCache &cache) const {
  if (!cache.cache) return project(attend(project_and_rotate(x, rotary)));
  const at::Tensor query = rotary_rms_norm(to_q_.product(x), norm_q_, rotary.cos, rotary.sin, eps_);
  const KeyValue seen = extend(x, rotary, cache);
  return project(attention(query, seen.key, seen.value));
}

KeyValue WanAttention::key_value(const at::Tensor &x, const Linear &to_k, const Linear &to_v,
                                 const at::Tensor &norm_k) const {
  const Activations input = to_k.input(x);
  return {heads(heads_rms_norm(to_k.product(input), norm_k, eps_)), heads(to_v.product(input).sum())};
}

CrossContext WanAttention::cross_context(const at::Tensor &text, const at::Tensor &image) const {
  CrossContext context = {key_value(text, to_k_, to_v_, norm_k_), {}};
  if (image.defined()) context.image = key_value(image, added_->to_k, added_->to_v, added_->norm_k);
  return context;
}

Product WanAttention::cross_attention(const Activations &x, const CrossContext &context) const {
  const at::Tensor query = heads(heads_rms_norm(to_q_.product(x), norm_q_, eps_));
  at::Tensor attended = attention(query, context.text.key, context.text.value);
  if (context.image.key.defined())
    attended = attended + attention(query, context.image.key, context.image.value);
  return project(attended);
}

}  // namespace wan
