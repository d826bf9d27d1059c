// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/block.h"

#include <ATen/ATen.h>

#include "ops/modulation.h"

namespace wan {

WanTransformerBlock::WanTransformerBlock(const TransformerConfig &config, const Weights &weights,
                                         WanQuantization quantization)
    : eps_(config.eps),
      scale_shift_table_(weights("scale_shift_table", {1, 6, config.inner_dim()})),
      attn1_(config, weights / "attn1", quantization),
      attn2_(config, weights / "attn2", quantization, config.image_dim.has_value()),
      norm2_weight_(weights("norm2.weight", {config.inner_dim()})),
      norm2_bias_(weights("norm2.bias", {config.inner_dim()})),
      ffn_in_(weights / "ffn.net.0.proj", config.inner_dim(), config.ffn_dim, quantization),
      ffn_out_(weights / "ffn.net.2", config.ffn_dim, config.inner_dim(), quantization) {}

std::vector<at::Tensor> WanTransformerBlock::rows_of(const Modulation &modulation) const {
  return (scale_shift_table_ + modulation.values.to(at::kFloat)).unbind(2);
}

void WanTransformerBlock::remember(const at::Tensor &x, const Modulation &modulation,
                                   const RotaryEmbedding &rotary, const Surroundings &others) const {
  const std::vector<at::Tensor> rows = rows_of(modulation);
  attn1_.remember(
      modulated_norm(x, /*shift=*/rows[0], /*scale=*/rows[1], eps_, attn1_.quantized(), modulation.starts),
      rotary, others);
}

at::Tensor WanTransformerBlock::operator()(const at::Tensor &x, const CrossContext &context,
                                           const Modulation &modulation, const RotaryEmbedding &rotary,
                                           const Surroundings &others) const {
  const std::vector<at::Tensor> rows = rows_of(modulation);
  const at::Tensor &shift_attention = rows[0], &scale_attention = rows[1], &gate_attention = rows[2];
  const at::Tensor &shift_ffn = rows[3], &scale_ffn = rows[4], &gate_ffn = rows[5];
  const at::IntArrayRef starts = modulation.starts;

  const bool quantizes = attn1_.quantized();
  const Activations attention_input =
      modulated_norm(x, shift_attention, scale_attention, eps_, quantizes, starts);
  at::Tensor y =
      gated_residual(x, attn1_.self_attention(attention_input, rotary, others), gate_attention, starts);

  const Activations query_input = affine_norm(y, norm2_weight_, norm2_bias_, eps_, quantizes);
  y = residual(y, attn2_.cross_attention(query_input, context));

  const Activations hidden = ffn_in_.gelu(modulated_norm(y, shift_ffn, scale_ffn, eps_, quantizes, starts));
  return gated_residual(y, ffn_out_.product(hidden), gate_ffn, starts);
}

}  // namespace wan
