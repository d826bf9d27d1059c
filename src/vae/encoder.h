// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The encoder of the Wan VAE as a stream: 1 frame in (the first) or 4, one latent frame out.
// diffusers.models.autoencoders.autoencoder_kl_wan.WanEncoder3d.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"
#include "vae/blocks.h"

namespace wan {

struct WanDownBlock {
  std::vector<WanResidualBlock> resnets = {};
  std::optional<WanDownsample> downsampler = {};
  int64_t dim;
};

class WanEncoder3d {
 public:
  WanEncoder3d(const VaeConfig &config, const Weights &weights);

  /// frames: [1 or 4, 8 H, 8 W, C] in the weights' dtype, the next of the stream that `state` stands for; C
  /// being the picture's channels (VaeConfig::picture_channels()). Returns [1, H, W, 2 z_dim] float32: means,
  /// then logarithms of variances, before quant_conv. still: all frames are alike, and like those of the
  /// chunk before if that was still, too. What a stage has made of enough of them it makes of all others.
  at::Tensor operator()(const at::Tensor &frames, StreamState &state, const RunContext &context,
                        bool still = false) const;

 private:
  /// x: [T, H, W, C], what the stage takes. Returns what the next one takes; of the last the middle block.
  at::Tensor descend(size_t stage, const at::Tensor &x, StreamState &state, const RunContext &context) const;
  at::Tensor compute(size_t stage, const at::Tensor &x, StreamState &state, const RunContext &context) const;
  /// The last frame that a stage sees lies so many before the first.
  int64_t reach(size_t stage) const;
  /// The input of the stage's first block. x: the stage's, or the frames of the first stage.
  ConvResult enter(size_t stage, const at::Tensor &x, StreamState &state) const;

  const bool is_residual_;
  const CausalConv3d conv_in_;
  std::vector<WanDownBlock> down_blocks_;
  const WanMidBlock mid_block_;
  const at::Tensor norm_out_;
  const CausalConv3d conv_out_;
};

/// Values that the encoder holds at its peak for each latent pixel, two frames of history among them.
int64_t encoder_values(const VaeConfig &config);

}  // namespace wan
