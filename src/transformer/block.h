// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A block of the transformer: diffusers.models.transformers.transformer_wan.WanTransformerBlock.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "transformer/attention.h"
#include "transformer/linear.h"
#include "transformer/rope.h"

namespace wan {

/// What the timesteps make of the tokens, a row for each of the S segments of tokens that have one of their
/// own.
struct Modulation {
  at::Tensor values;            // [B, S, 6, D]
  std::vector<int64_t> starts;  // the first token of each segment, from 0 on
};

/// Self-attention, cross-attention and feed-forward.
class WanTransformerBlock {
 public:
  WanTransformerBlock(const TransformerConfig &config, const Weights &weights, WanQuantization quantization);

  /// x: [B, L, D], the rank's own tokens, as is all that is given for them; context: what cross_attention()
  /// made for this block.
  at::Tensor operator()(const at::Tensor &x, const CrossContext &context, const Modulation &modulation,
                        const RotaryEmbedding &rotary, const Surroundings &others) const;
  /// Only leaves the tokens' keys and values in the cache.
  void remember(const at::Tensor &x, const Modulation &modulation, const RotaryEmbedding &rotary,
                const Surroundings &others) const;
  const WanAttention &cross_attention() const { return attn2_; }
  template <typename Function>
  void for_each_tensor(Function function) {
    function(scale_shift_table_);
    attn1_.for_each_tensor(function);
    attn2_.for_each_tensor(function);
    function(norm2_weight_);
    function(norm2_bias_);
    ffn_in_.for_each_tensor(function);
    ffn_out_.for_each_tensor(function);
  }

 private:
  /// Six rows for each segment: shift, scale and gate of self-attention, and the same of the feed-forward.
  std::vector<at::Tensor> rows_of(const Modulation &modulation) const;

  const double eps_;
  at::Tensor scale_shift_table_;  // [1, 6, D] float32
  WanAttention attn1_, attn2_;
  at::Tensor norm2_weight_, norm2_bias_;  // float32
  Linear ffn_in_, ffn_out_;
};

}  // namespace wan
