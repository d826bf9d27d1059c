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

/// In a group only if all can: the ranks exchange other tensors with it than without.
bool WanAttention::attends_in_fp8(const Activations &x, const Surroundings &others) const {
  const auto has_kernel = [&](at::Device device) {
    return has_fp8_attention(device, others.tokens, x.values.size(2) / num_heads_);
  };
  return quantized() && has_kernel(x.values.device()) && others.group.all_devices(has_kernel);
}

WanAttention::Projected WanAttention::project_and_rotate(const Activations &x, const RotaryEmbedding &rotary,
                                                         const Surroundings &others) const {
  if (attends_in_fp8(x, others)) return project_and_rotate_in_fp8(x, rotary, others);
  const at::Tensor &cos = rotary.cos, &sin = rotary.sin;
  Handover handover(others.group);
  Projected all;
  all.value = handover.to_heads(heads(to_v_.product(x).sum()), others.tokens);
  all.key = handover.to_heads(rotary_rms_norm(to_k_.product(x), norm_k_, cos, sin, eps_), others.tokens);
  all.query = handover.to_heads(rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_), others.tokens);
  handover.wait();
  return all;
}

/// All keys of a softmax have one center, whichever rank they come from.
WanAttention::Projected WanAttention::project_and_rotate_in_fp8(const Activations &x,
                                                                const RotaryEmbedding &rotary,
                                                                const Surroundings &others) const {
  const at::Tensor &cos = rotary.cos, &sin = rotary.sin;
  const Product key = to_k_.product(x);
  const at::Tensor center = others.group.mean(rotary_norm_center(key, norm_k_, cos, sin, eps_));
  Handover handover(others.group);
  const auto hand_over = [&](const at::Tensor &own) { return handover.to_heads(own, others.tokens); };
  Projected all;
  all.key = hand_over(fp8_rotary_rms_norm(key, norm_k_, cos, sin, eps_, center));
  const Product value = to_v_.product(x);
  all.value = hand_over(heads(value.values));
  all.query = hand_over(fp8_rotary_rms_norm(to_q_.product(x), norm_q_, cos, sin, eps_));
  if (value.bias.defined()) {
    const Share share = others.group.own_share(num_heads_);
    all.value_bias = heads(value.bias).narrow(0, share.first, share.count).flatten();
  }
  handover.wait();
  return all;
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
  Handover handover(others.group);
  const KeyValue all = key_value_for_cache(x, rotary, others, handover);
  handover.wait();
  extend(all, others);
}

at::Tensor WanAttention::attend_through_cache(const Activations &x, const RotaryEmbedding &rotary,
                                              const Surroundings &others) const {
  Handover handover(others.group);
  const KeyValue all = key_value_for_cache(x, rotary, others, handover);
  const at::Tensor query = handover.to_heads(
      rotary_rms_norm(to_q_.product(x), norm_q_, rotary.cos, rotary.sin, eps_), others.tokens);
  handover.wait();
  const KeyValue seen = extend(all, others);
  return attention(query, seen.key, seen.value);
}

/// Between the stages is the place of what makes other tokens of one's own: an exchange with other GPUs, and
/// a cache of earlier keys and values.
Product WanAttention::self_attention(const Activations &x, const RotaryEmbedding &rotary,
                                     const Surroundings &others) const {
  const at::Tensor attended =
      others.cache ? attend_through_cache(x, rotary, others) : attend(project_and_rotate(x, rotary, others));
  return project(others.group.to_tokens(attended, num_heads_));
}

KeyValue WanAttention::key_value(const Activations &x, const Linear &to_k, const Linear &to_v,
                                 const at::Tensor &norm_k) const {
  return {heads(heads_rms_norm(to_k.product(x), norm_k, eps_)), heads(to_v.product(x).sum())};
}

KeyValue WanAttention::key_value_for_cache(const Activations &x, const RotaryEmbedding &rotary,
                                           const Surroundings &others, Handover &handover) const {
  KeyValue all;
  all.value = handover.to_heads(heads(to_v_.product(x).sum()), others.tokens);
  const Product key = to_k_.product(x);
  all.key = handover.to_heads(others.cache->keeps_unrotated()
                                  ? heads(heads_rms_norm(key, norm_k_, eps_))
                                  : rotary_rms_norm(key, norm_k_, rotary.cos, rotary.sin, eps_),
                              others.tokens);
  return all;
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
