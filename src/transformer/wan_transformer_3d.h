// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The denoiser: diffusers.models.transformers.transformer_wan.WanTransformer3DModel.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "transformer/block.h"
#include "transformer/block_store.h"
#include "transformer/linear.h"
#include "transformer/pass.h"
#include "transformer/rope.h"

namespace wan {

/// What the blocks see of pictures (diffusers WanImageEmbedding).
class WanImageEmbedding {
 public:
  WanImageEmbedding(const TransformerConfig &config, const Weights &weights);
  /// image: [pictures, L, image_dim], of CLIP. Returns [1, pictures * L, D].
  at::Tensor operator()(const at::Tensor &image) const;

 private:
  at::Tensor pos_embed_;  // [1, pictures * L, image_dim]; undefined where the model takes one picture
  const at::Tensor norm1_weight_, norm1_bias_;
  const Linear ff_in_, ff_out_;
  const at::Tensor norm2_weight_, norm2_bias_;
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

  /// text: [B, 512, text_dim], the text encoder's rows, zero beyond the prompt; image: of each picture what
  /// CLIP makes of it, [pictures, 257, image_dim], undefined unless the model has an image_dim.
  EncodedContext encode(const at::Tensor &text, const at::Tensor &image = {}) const;
  /// The same of the timesteps of passes that have them in common.
  EncodedTimes encode(const std::vector<TimeSegment> &times) const;

  /// latents: [B, in_channels, T, H, W]; pass.rotary: tables for (T, H / patch, W / patch). Returns the
  /// predicted velocity, [B, out_channels, T, H, W] in the weights' dtype; undefined where the pass only
  /// remembers, and on all ranks of the group but the first.
  at::Tensor operator()(const at::Tensor &latents, const Pass &pass) const;
  /// Bytes of the blocks' weights.
  uint64_t block_bytes() const { return blocks_->bytes(); }
  /// Of the activations.
  at::ScalarType dtype() const { return dtype_; }
  at::Device device() const { return patch_weight_.device(); }

  /// Tables for latents of this size.
  RotaryEmbedding rotary(int64_t frames, int64_t height, int64_t width) const;

 private:
  at::Tensor patchify(const at::Tensor &latents) const;
  at::Tensor unpatchify(const at::Tensor &tokens, at::IntArrayRef latents_shape) const;
  at::Tensor time_embedding(const std::vector<TimeSegment> &times) const;

  const TransformerConfig config_;
  const at::ScalarType dtype_;
  const at::Tensor patch_weight_, patch_bias_;
  const Linear time_in_, time_out_;  // float32
  const Linear time_proj_;
  const Linear text_in_, text_out_;
  std::optional<WanImageEmbedding> image_embedder_;
  const std::unique_ptr<BlockStore> blocks_;  // they come and go, also in a const model; their values stay
  const at::Tensor scale_shift_table_;        // [1, 2, D] float32
  const Linear proj_out_;
};

}  // namespace wan
