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

bool WanAttention::attends_in_fp8(const Activations &x, const Surroundings &others) const {
  return quantized() && has_fp8_attention(x.values.device(), others.tokens, x.values.size(2) / num_heads_);
}

/// In FP8 all keys of a softmax have one center, whichever rank they come from.
WanAttention::Projected WanAttention::project_and_rotate(const Activations &x, const RotaryEmbedding &rotary,
                                                         const Surroundings &others) const {
  const at::Tensor &cos = rotary.cos, &sin = rotary.sin;
  if (!attends_in_fp8(x, others))
    return {rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_),
            rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_),
            heads(to_v_.product(x).sum()),
            {}};
  const Product key = to_k_.product(x), value = to_v_.product(x);
  const at::Tensor center = others.group.mean(rotary_norm_center(key, norm_k_, cos, sin, eps_));
  return {fp8_rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_),
          fp8_rotary_rms_norm(key, norm_k_, cos, sin, eps_, center), heads(value.values), value.bias};
}

WanAttention::Projected WanAttention::to_heads(const Projected &own, const Surroundings &others) const {
  const auto all = others.group.to_heads({own.query, own.key, own.value}, others.tokens);
  if (!own.value_bias.defined()) return {all[0], all[1], all[2], {}};
  const Share share = others.group.own_share(num_heads_);
  return {all[0], all[1], all[2], heads(own.value_bias).narrow(0, share.first, share.count).flatten()};
}

at::Tensor WanAttention::attend(const Projected &own) const {
  if (own.key.scalar_type() == at::kFloat8_e4m3fn)
    return fp8_attention(own.query, own.key, own.value, own.value_bias);
  return attention(own.query, own.key, own.value);
}

namespace {

/// Takes the keys and values of all tokens of a pass, and returns what these see. Where keys are kept
/// unrotated, their norm is rounded before they are turned, as all references do.
KeyValue extend(const KeyValue &own, const Surroundings &others) {
  KeyValueCache &cache = *others.cache;
  if (!cache.keeps_unrotated()) return cache.extend(others.layer, own, {});
  const RotaryEmbedding &rotary = cache.rotary();
  const at::Tensor rotated = at::empty_like(own.key);
  rotate_heads(own.key, rotary.cos, rotary.sin, rotated);
  return cache.extend(others.layer, {rotated, own.value}, own.key);
}

}  // namespace

void WanAttention::remember(const Activations &x, const RotaryEmbedding &rotary,
                            const Surroundings &others) const {
  const KeyValue own = key_value_for_cache(x, rotary, *others.cache);
  const auto all = others.group.to_heads({own.key, own.value}, others.tokens);
  extend({all[0], all[1]}, others);
}

at::Tensor WanAttention::attend_through_cache(const Activations &x, const RotaryEmbedding &rotary,
                                              const Surroundings &others) const {
  const at::Tensor query = rotary_rms_norm(to_q_.product(x), norm_q_, rotary.cos, rotary.sin, eps_);
  const KeyValue own = key_value_for_cache(x, rotary, *others.cache);
  const auto all = others.group.to_heads({query, own.key, own.value}, others.tokens);
  const KeyValue seen = extend({all[1], all[2]}, others);
  return attention(all[0], seen.key, seen.value);
}

/// Between the stages is the place of what makes other tokens of one's own: an exchange with other GPUs, and
/// a cache of earlier keys and values.
Product WanAttention::self_attention(const Activations &x, const RotaryEmbedding &rotary,
                                     const Surroundings &others) const {
  const at::Tensor attended = others.cache ? attend_through_cache(x, rotary, others)
                                           : attend(to_heads(project_and_rotate(x, rotary, others), others));
  return project(others.group.to_tokens(attended, num_heads_));
}

KeyValue WanAttention::key_value(const Activations &x, const Linear &to_k, const Linear &to_v,
                                 const at::Tensor &norm_k) const {
  return {heads(heads_rms_norm(to_k.product(x), norm_k, eps_)), heads(to_v.product(x).sum())};
}

KeyValue WanAttention::key_value_for_cache(const Activations &x, const RotaryEmbedding &rotary,
                                           const KeyValueCache &cache) const {
  if (cache.keeps_unrotated()) return key_value(x, to_k_, to_v_, norm_k_);
  return {rotary_rms_norm(to_k_.product(x), norm_k_, rotary.cos, rotary.sin, eps_),
          heads(to_v_.product(x).sum())};
}

CrossContext WanAttention::cross_context(const at::Tensor &text, const at::Tensor &image) const {
  CrossContext context = {key_value(to_k_.input(text), to_k_, to_v_, norm_k_), {}};
  if (image.defined())
    context.image = key_value(added_->to_k.input(image), added_->to_k, added_->to_v, added_->norm_k);
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
