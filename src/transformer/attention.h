// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The attentions of a block: of all tokens with each other, and with the prompt and the pictures
// (diffusers WanAttention and WanAttnProcessor).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "parallel/sequence_group.h"
#include "transformer/kv_cache.h"
#include "transformer/linear.h"
#include "transformer/rope.h"

namespace wan {

/// What a block sees beside the tokens. The same in all forwards of a prompt.
struct CrossContext {
  KeyValue text;
  KeyValue image;  // undefined where the model sees no pictures
};

/// Of the tokens that a self-attention sees beside the rank's own ones: those of the other ranks, and
/// earlier ones.
struct Surroundings {
  const SequenceGroup &group;
  int64_t tokens;        // of all ranks
  KeyValueCache *cache;  // of this rank's heads; null: no earlier ones are seen
  size_t layer;          // in the cache
};

class WanAttention {
 public:
  /// sees_pictures: as a cross-attention, it has keys and values of its own for these.
  WanAttention(const TransformerConfig &config, const Weights &weights, WanQuantization quantization,
               bool sees_pictures = false);

  /// x: the rank's own tokens; rotary: their tables.
  Product self_attention(const Activations &x, const RotaryEmbedding &rotary,
                         const Surroundings &others) const;
  /// Only leaves the tokens' keys and values in the cache.
  void remember(const Activations &x, const RotaryEmbedding &rotary, const Surroundings &others) const;
  /// text: [B, 512, D]; image: [B, L, D], undefined where there is none.
  CrossContext cross_context(const at::Tensor &text, const at::Tensor &image) const;
  Product cross_attention(const Activations &x, const CrossContext &context) const;

  bool quantized() const { return to_q_.quantized(); }
  template <typename Function>
  void for_each_tensor(Function function) {
    for (Linear *linear : {&to_q_, &to_k_, &to_v_, &to_out_}) linear->for_each_tensor(function);
    function(norm_q_);
    function(norm_k_);
    if (!added_) return;
    added_->to_k.for_each_tensor(function);
    added_->to_v.for_each_tensor(function);
    function(added_->norm_k);
  }

 private:
  /// Keys and values of pictures.
  struct Added {
    Linear to_k, to_v;
    at::Tensor norm_k;
  };
  /// [B, L, heads, head_dim]. Query and key are normed and rotated, in e4m3 where attention is computed in
  /// it. Each is on its way to the other ranks while the next is made.
  struct Projected {
    at::Tensor query, key, value;
    at::Tensor value_bias;  // [heads * head_dim], still to be added; undefined: there is none
  };

  bool attends_in_fp8(const Activations &x, const Surroundings &others) const;
  /// x: the rank's own tokens. Returns that of all tokens and the rank's own heads, as the other ranks do.
  Projected project_and_rotate(const Activations &x, const RotaryEmbedding &rotary,
                               const Surroundings &others) const;
  Projected project_and_rotate_in_fp8(const Activations &x, const RotaryEmbedding &rotary,
                                      const Surroundings &others) const;
  at::Tensor attend(const Projected &own) const;
  at::Tensor attend_through_cache(const Activations &x, const RotaryEmbedding &rotary,
                                  const Surroundings &others) const;
  /// What goes into a cache, as project_and_rotate(): keys are rotated unless the cache does that. Not to be
  /// read before handover.wait().
  KeyValue key_value_for_cache(const Activations &x, const RotaryEmbedding &rotary,
                               const Surroundings &others, Handover &handover) const;
  /// With normed keys.
  KeyValue key_value(const Activations &x, const Linear &to_k, const Linear &to_v,
                     const at::Tensor &norm_k) const;
  /// attended: [B, L, heads, head_dim].
  Product project(const at::Tensor &attended) const;
  at::Tensor heads(const at::Tensor &x) const;

  const int64_t num_heads_;
  const double eps_;
  Linear to_q_, to_k_, to_v_, to_out_;
  at::Tensor norm_q_, norm_k_;
  std::optional<Added> added_;
};

}  // namespace wan
