// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decoder of the Wan VAE with 16 latent channels, as a stream: one latent frame in, 1 (the first) or 4
// frames out. diffusers.models.autoencoders.autoencoder_kl_wan.AutoencoderKLWan.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"
#include "vae/causal_conv.h"

namespace wan {

/// diffusers WanResidualBlock. A block is handed its input together with SiLU(norm1(input)), and hands on its
/// output together with what the norm behind it makes of it: the convolutions' epilogues do all of this.
class WanResidualBlock {
 public:
  WanResidualBlock(const Weights &weights, int64_t in, int64_t out);
  /// x: [T, H, W, in] twice. next: without a residual. Returns [T, H, W, out].
  ConvResult operator()(const ConvResult &x, StreamState &state, Epilogue next) const;
  /// The gamma of the norm in front, [in].
  const at::Tensor &norm1() const { return norm1_; }

 private:
  const at::Tensor norm1_;
  const CausalConv3d conv1_;
  const at::Tensor norm2_;
  const CausalConv3d conv2_;
  std::optional<PointwiseConv3d> conv_shortcut_;
};

/// Self-attention of each frame, one head (diffusers WanAttentionBlock).
class WanAttentionBlock {
 public:
  WanAttentionBlock(const Weights &weights, int64_t dim);
  /// x: [T, H, W, dim].
  at::Tensor operator()(const at::Tensor &x) const;

 private:
  const at::Tensor norm_;
  const PointwiseConv3d to_qkv_, proj_;
};

/// Doubles the frames, where the stage does that, and then height and width (diffusers WanResample,
/// upsample2d and upsample3d).
class WanUpsample {
 public:
  WanUpsample(const Weights &weights, int64_t in, int64_t out, bool temporal);
  /// What is best taken at a time, so that no more than `frames` come out of double_frames().
  int64_t frames_to_take(int64_t frames) const { return time_conv_ ? frames / 2 : frames; }
  /// x: [T, H, W, in]. Returns [T or 2 T, H, W, in].
  at::Tensor double_frames(const at::Tensor &x, StreamState &state) const;
  /// x: [T, H, W, in]. Returns [T, 2 H, 2 W, out].
  ConvResult double_size(const at::Tensor &x, const Epilogue &next) const;

 private:
  std::optional<CausalConv3d> time_conv_;
  const ConvWeight conv_;
};

struct WanUpBlock {
  std::vector<WanResidualBlock> resnets;
  std::optional<WanUpsample> upsampler;
};

class AutoencoderKLWan {
 public:
  AutoencoderKLWan(const VaeConfig &config, const Weights &weights);

  /// Prefixes of the tensors that decoding does not need.
  static const std::vector<std::string> kEncoderTensors;

  /// latents: [B, z_dim, T, H, W] as the denoiser leaves them. Returns what decode() takes.
  at::Tensor denormalize(const at::Tensor &latents) const;

  /// latent: [1, z_dim, 1, H, W], the next latent frame of the stream that `state` stands for (new for a new
  /// stream). Returns [1, 3, 1 or 4, 8 H, 8 W] float32 in [-1, 1]; in between all is in the weights' dtype.
  /// Memory does not grow with the stream, and the host does not wait for the GPU.
  at::Tensor decode(const at::Tensor &latent, StreamState &state, const RunContext &context) const;
  /// The same before values outside [-1, 1] are clamped.
  at::Tensor decode_unclamped(const at::Tensor &latent, StreamState &state, const RunContext &context) const;

  /// Bytes that a stream of H x W latents needs at its peak.
  uint64_t decode_bytes(int64_t height, int64_t width) const;
  int64_t spatial_scale() const { return config_.spatial_scale(); }
  int64_t temporal_scale() const { return config_.temporal_scale(); }

 private:
  /// latent: [1, z_dim, 1, H, W]. Returns what the first stage takes.
  ConvResult enter(const at::Tensor &latent, StreamState &state) const;
  /// The stages from this one on. Appends to `video` frames of [3, T, 8 H, 8 W].
  void ascend(size_t stage, ConvResult x, StreamState &state, const RunContext &context, Frames &video) const;
  /// What follows a residual block.
  Epilogue behind(size_t stage, size_t resnet) const;

  const VaeConfig config_;
  const at::ScalarType dtype_;
  const at::Tensor latents_mean_, latents_inverse_std_;  // [1, z_dim, 1, 1, 1]
  const PointwiseConv3d post_quant_conv_;
  const CausalConv3d conv_in_;
  const WanResidualBlock mid_first_;
  const WanAttentionBlock mid_attention_;
  const WanResidualBlock mid_second_;
  std::vector<WanUpBlock> up_blocks_;
  const at::Tensor norm_out_;
  const CausalConv3d conv_out_;
};

}  // namespace wan
