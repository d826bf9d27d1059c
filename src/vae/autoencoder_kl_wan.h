// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The Wan VAE, with 16 latent channels or, residual and on patches, with 48; both ways as a stream.
// diffusers.models.autoencoders.autoencoder_kl_wan.AutoencoderKLWan.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"
#include "vae/decoder.h"
#include "vae/encoder.h"
#include "vae/latent_decoder.h"
#include "vae/video.h"

namespace wan {

class AutoencoderKLWan : public LatentDecoder {
 public:
  /// encoder_dtype: what the encoder computes in; none: it is not loaded, and encode() is not called.
  AutoencoderKLWan(const VaeConfig &config, const Weights &weights,
                   std::optional<at::ScalarType> encoder_dtype = std::nullopt);

  /// Prefixes of the tensors that decoding does not need.
  static const std::vector<std::string> kEncoderTensors;

  /// latents: [B, z_dim, T, H, W] as the denoiser leaves them. Returns what decode() takes.
  at::Tensor denormalize(const at::Tensor &latents) const;
  /// The reverse: what the denoiser takes, of what encode() gives.
  at::Tensor normalize(const at::Tensor &latents) const;

  /// latent: [1, z_dim, 1, H, W], the next latent frame of the stream that `state` stands for (new for a new
  /// stream). Returns [1, 3, 1 or 4, s H, s W] float32 in [-1, 1], s being spatial_scale(); in between all is
  /// in the weights' dtype. Memory does not grow with the stream, and the host does not wait for the GPU.
  at::Tensor decode(const at::Tensor &latent, StreamState &state, const RunContext &context) const;
  /// denormalize() and decode().
  at::Tensor decode_next(const at::Tensor &latent, StreamState &state,
                         const RunContext &context) const override;
  /// As decode() before values outside [-1, 1] are clamped.
  at::Tensor decode_unclamped(const at::Tensor &latent, StreamState &state, const RunContext &context) const;

  /// video: of F frames of s H x s W, on the weights' device or in host memory, of which a chunk at a time is
  /// taken. Returns [1, z_dim, T, H, W] float32, the latents' means (Diffusers'
  /// latent_dist.mode()), for normalize(). Frames behind the last 1 + 4 k are left out.
  at::Tensor encode(const Video &video, const RunContext &context) const;
  /// The same chunk by chunk: [1, 3, 1 (the first of the stream that `state` stands for) or 4, s H, s W] to
  /// [1, z_dim, 1, H, W]. still: as of WanEncoder3d.
  at::Tensor encode_chunk(const at::Tensor &chunk, StreamState &state, const RunContext &context,
                          bool still = false) const;

  uint64_t decode_bytes(int64_t height, int64_t width) const override;
  /// Bytes that encoding a stream of H x W latents needs at its peak.
  uint64_t encode_bytes(int64_t height, int64_t width) const;
  int64_t spatial_scale() const { return config_.spatial_scale(); }
  int64_t temporal_scale() const { return config_.temporal_scale(); }
  int64_t patch_size() const { return config_.patch_size; }

 private:
  struct Encoder {
    Encoder(const VaeConfig &config, const Weights &weights, at::ScalarType dtype);

    const at::ScalarType dtype;
    const WanEncoder3d encoder;
    const PointwiseConv3d quant_conv;
  };

  const VaeConfig config_;
  const at::ScalarType dtype_;
  const at::Tensor latents_mean_, latents_inverse_std_;  // [1, z_dim, 1, 1, 1]
  const PointwiseConv3d post_quant_conv_;
  const WanDecoder3d decoder_;
  std::optional<Encoder> encoder_;
};

}  // namespace wan
