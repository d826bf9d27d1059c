// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The denoiser: diffusers.models.transformers.transformer_wan.WanTransformer3DModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "ops/linear.h"
#include "run_context.h"
#include "transformer/block_store.h"
#include "transformer/rope.h"
#include "transformer/step_cache.h"

namespace wan {

/// A matrix and a bias. Quantized, the matrix is in e4m3 with a scale for each output channel.
class Linear {
 public:
  Linear(const Weights &weights, int64_t in, int64_t out,
         WanQuantization quantization = WAN_QUANTIZATION_NONE);

  at::Tensor operator()(const at::Tensor &x) const { return product(input(x)).sum(); }
  /// The steps of it, where a kernel before or after takes over a part: what product() takes of x, and the
  /// product.
  Activations input(const at::Tensor &x) const { return quantized() ? quantize_rows(x) : Activations(x); }
  Product product(const Activations &x) const;
  /// gelu(product), as the input of another that is quantized if this one is.
  Activations gelu(const Activations &x) const;

  bool quantized() const { return scale_.defined(); }

  /// Calls function(at::Tensor &) for each of the weights, also for undefined ones; likewise below. For
  /// BlockStore, which moves them.
  template <typename Function>
  void for_each_tensor(Function function) {
    for (at::Tensor *tensor : {&weight_, &bias_, &scale_}) function(*tensor);
  }

 private:
  Linear(at::Tensor bias, QuantizedWeight weight)
      : weight_(std::move(weight.weight)), bias_(std::move(bias)), scale_(std::move(weight.scale)) {}

  at::Tensor weight_, bias_;
  at::Tensor scale_;  // [out] float32, undefined unless quantized
};

/// Multi-head attention with RMS-normalised queries and keys (diffusers WanAttention and WanAttnProcessor).
class WanAttention {
 public:
  WanAttention(const TransformerConfig &config, const Weights &weights, WanQuantization quantization);

  /// Keys and values, [B, L, heads, head_dim].
  struct KeyValue {
    at::Tensor key, value;
  };
  KeyValue key_value(const at::Tensor &x) const;
  Product self_attention(const Activations &x, const RotaryEmbedding &rotary) const;
  Product cross_attention(const Activations &x, const KeyValue &text) const;

  bool quantized() const { return to_q_.quantized(); }
  template <typename Function>
  void for_each_tensor(Function function) {
    for (Linear *linear : {&to_q_, &to_k_, &to_v_, &to_out_}) linear->for_each_tensor(function);
    function(norm_q_);
    function(norm_k_);
  }

 private:
  /// attended: [B, L, heads, head_dim].
  Product project(const at::Tensor &attended) const;
  at::Tensor heads(const at::Tensor &x) const;

  const int64_t num_heads_;
  const double eps_;
  Linear to_q_, to_k_, to_v_, to_out_;
  at::Tensor norm_q_, norm_k_;
};

/// Self-attention, cross-attention and feed-forward, modulated by the timestep (diffusers
/// WanTransformerBlock).
class WanTransformerBlock {
 public:
  WanTransformerBlock(const TransformerConfig &config, const Weights &weights, WanQuantization quantization);

  /// x: [B, L, D]; timestep: [B, 6, D]; text: this block's keys and values of the prompt.
  at::Tensor operator()(const at::Tensor &x, const WanAttention::KeyValue &text, const at::Tensor &timestep,
                        const RotaryEmbedding &rotary) const;
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
  const double eps_;
  at::Tensor scale_shift_table_;  // [1, 6, D] float32
  WanAttention attn1_, attn2_;
  at::Tensor norm2_weight_, norm2_bias_;  // float32
  Linear ffn_in_, ffn_out_;
};

class WanTransformer3DModel {
 public:
  /// Diffusers' _keep_in_fp32_modules.
  static const std::set<std::string> kKeepInFp32;

  /// quantization: of the blocks. With `slots` the blocks' weights lie in host memory and come to the GPU by
  /// turns, with the same results.
  WanTransformer3DModel(const TransformerConfig &config, const Weights &weights,
                        WanQuantization quantization = WAN_QUANTIZATION_NONE,
                        std::shared_ptr<BlockSlots> slots = nullptr);

  /// What the denoiser keeps of a prompt for a whole run.
  struct TextContext {
    at::Tensor embedded;                         // [B, 512, D]
    std::vector<WanAttention::KeyValue> blocks;  // of each block, undefined until its first forward
  };
  /// text: [B, 512, text_dim], the text encoder's rows, zero beyond the prompt.
  TextContext encode_text(const at::Tensor &text) const;

  /// latents: [B, in_channels, T, H, W]; timestep in [0, 1000]; rotary: tables for (T, H / patch, W / patch).
  /// Returns the predicted velocity, [B, out_channels, T, H, W] in the weights' dtype. With a cache, blocks
  /// may be left out.
  at::Tensor operator()(const at::Tensor &latents, double timestep, TextContext &text,
                        const RotaryEmbedding &rotary, const RunContext &context,
                        StepCache *cache = nullptr) const;
  /// Says whose forward follows the next one of this model, so that its first blocks come in time. Where it
  /// is not said or does not come true, they come a little later.
  void followed_by(const WanTransformer3DModel &next) const { blocks_->followed_by(*next.blocks_); }
  /// Bytes of the blocks' weights.
  uint64_t block_bytes() const { return blocks_->bytes(); }

  /// Tables for latents of this size.
  RotaryEmbedding rotary(int64_t frames, int64_t height, int64_t width) const;

 private:
  at::Tensor patchify(const at::Tensor &latents) const;
  at::Tensor unpatchify(const at::Tensor &tokens, at::IntArrayRef latents_shape) const;
  at::Tensor time_embedding(double timestep) const;

  const TransformerConfig config_;
  const at::ScalarType dtype_;
  const at::Tensor patch_weight_, patch_bias_;
  const Linear time_in_, time_out_;  // float32
  const Linear time_proj_;
  const Linear text_in_, text_out_;
  const std::unique_ptr<BlockStore> blocks_;  // they come and go, also in a const model; their values stay
  const at::Tensor scale_shift_table_;        // [1, 2, D] float32
  const Linear proj_out_;
};

}  // namespace wan
