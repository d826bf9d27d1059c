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

/// diffusers WanResidualBlock.
class WanResidualBlock {
 public:
  WanResidualBlock(const Weights &weights, int64_t in, int64_t out);
  at::Tensor operator()(const at::Tensor &x, StreamState &state) const;

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
  at::Tensor operator()(const at::Tensor &x) const;

 private:
  const at::Tensor norm_;
  const Conv2dPerFrame to_qkv_, proj_;
};

/// Doubles height and width and halves the channels, and doubles the frames where the stage does that
/// (diffusers WanResample, upsample2d and upsample3d).
class WanUpsample {
 public:
  WanUpsample(const Weights &weights, int64_t dim, bool temporal);
  at::Tensor operator()(const at::Tensor &x, StreamState &state) const;

 private:
  at::Tensor double_frames(const at::Tensor &x, StreamState &state) const;

  std::optional<CausalConv3d> time_conv_;
  const Conv2dPerFrame conv_;
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

  /// latent: [B, z_dim, 1, H, W], the next latent frame of the stream that `state` stands for (new for a new
  /// stream). Returns [B, 3, 1 or 4, 8 H, 8 W] in [-1, 1]. Memory does not grow with the stream.
  at::Tensor decode(const at::Tensor &latent, StreamState &state, const RunContext &context) const;

  /// Bytes that a stream of H x W latents needs at its peak.
  uint64_t decode_bytes(int64_t height, int64_t width) const;

 private:
  const VaeConfig config_;
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
