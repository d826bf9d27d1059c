// The denoiser: diffusers.models.transformers.transformer_wan.WanTransformer3DModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <set>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "ops/linear.h"
#include "run_context.h"
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
  /// gelu(product), as an input of `next`.
  Activations gelu(const Activations &x, const Linear &next) const;

  bool quantized() const { return scale_.defined(); }

 private:
  Linear(at::Tensor bias, QuantizedWeight weight)
      : weight_(std::move(weight.weight)), bias_(std::move(bias)), scale_(std::move(weight.scale)) {}

  const at::Tensor weight_, bias_;
  const at::Tensor scale_;  // [out] float32, undefined unless quantized
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

 private:
  /// attended: [B, L, heads, head_dim].
  Product project(const at::Tensor &attended) const;
  at::Tensor heads(const at::Tensor &x) const;

  const int64_t num_heads_;
  const double eps_;
  const Linear to_q_, to_k_, to_v_, to_out_;
  const at::Tensor norm_q_, norm_k_;
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

 private:
  const double eps_;
  const at::Tensor scale_shift_table_;  // [1, 6, D] float32
  const WanAttention attn1_, attn2_;
  const at::Tensor norm2_weight_, norm2_bias_;  // float32
  const Linear ffn_in_, ffn_out_;
};

class WanTransformer3DModel {
 public:
  /// Diffusers' _keep_in_fp32_modules.
  static const std::set<std::string> kKeepInFp32;

  /// quantization: of the blocks.
  WanTransformer3DModel(const TransformerConfig &config, const Weights &weights,
                        WanQuantization quantization = WAN_QUANTIZATION_NONE);

  /// What the denoiser keeps of a prompt for a whole run: each block's keys and values.
  using TextContext = std::vector<WanAttention::KeyValue>;
  /// text: [B, 512, text_dim], the text encoder's rows, zero beyond the prompt.
  TextContext encode_text(const at::Tensor &text) const;

  /// latents: [B, in_channels, T, H, W]; timestep in [0, 1000]; rotary: tables for (T, H / patch, W / patch).
  /// Returns the predicted velocity, [B, out_channels, T, H, W] in the weights' dtype. With a cache, blocks
  /// may be left out.
  at::Tensor operator()(const at::Tensor &latents, double timestep, const TextContext &text,
                        const RotaryEmbedding &rotary, const RunContext &context,
                        StepCache *cache = nullptr) const;

  /// Throws wan::Error (WAN_INVALID) where latents of this size are beyond rope_max_seq_len.
  void check_size(int64_t frames, int64_t height, int64_t width) const;
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
  std::vector<WanTransformerBlock> blocks_;
  const at::Tensor scale_shift_table_;  // [1, 2, D] float32
  const Linear proj_out_;
};

}  // namespace wan
