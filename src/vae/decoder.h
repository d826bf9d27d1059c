// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decoder of the Wan VAE as a stream: one latent frame in, 1 (the first) or 4 frames out.
// diffusers.models.autoencoders.autoencoder_kl_wan.WanDecoder3d.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"
#include "vae/blocks.h"

namespace wan {

struct WanUpBlock {
  std::vector<WanResidualBlock> resnets;
  std::optional<WanUpsample> upsampler;
};

class WanDecoder3d {
 public:
  WanDecoder3d(const VaeConfig &config, const Weights &weights);

  /// latent: [1, H, W, z_dim], the next of the stream that `state` stands for. Returns [C, 1 or 4, 8 H, 8 W]
  /// float32, C being the picture's channels (VaeConfig::picture_channels()).
  at::Tensor operator()(const at::Tensor &latent, StreamState &state, const RunContext &context) const;

 private:
  /// The stages from this one on. Appends to `video` frames of [C, T, 8 H, 8 W].
  void ascend(size_t stage, ConvResult x, StreamState &state, const RunContext &context, Frames &video) const;
  /// What goes around a stage, in parts as it is upsampled in. x: the stage's input, which its blocks may
  /// overwrite.
  Frames shortcuts(const WanUpBlock &block, const at::Tensor &x) const;
  /// A part of what a stage's blocks made, upsampled for the next stage. shortcut: or undefined.
  ConvResult upsample(size_t stage, at::Tensor part, const at::Tensor &shortcut, StreamState &state) const;
  /// What follows a residual block.
  Epilogue behind(size_t stage, size_t resnet) const;

  const bool is_residual_;
  const CausalConv3d conv_in_;
  const WanMidBlock mid_block_;
  std::vector<WanUpBlock> up_blocks_;
  const at::Tensor norm_out_;
  const CausalConv3d conv_out_;
};

/// Values that the decoder holds at its peak for each latent pixel, two frames of history among them.
int64_t decoder_values(const VaeConfig &config, at::ScalarType dtype, at::Device device);

}  // namespace wan
