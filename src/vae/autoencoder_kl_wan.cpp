// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/autoencoder_kl_wan.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

at::Tensor per_channel(const std::vector<double> &values) {
  return at::tensor(values, at::kFloat).view({1, -1, 1, 1, 1});
}

uint64_t bytes_of(int64_t values, at::ScalarType dtype, int64_t height, int64_t width) {
  return static_cast<uint64_t>(values) * c10::elementSize(dtype) * static_cast<uint64_t>(height * width);
}

/// Pixels become channels, those of a column behind each other. video: [3, T, H, W]. Returns [T, H / size, W
/// / size, 3 * size * size].
at::Tensor patchify(const at::Tensor &video, int64_t size) {
  return video.unflatten(3, {-1, size}).unflatten(2, {-1, size}).permute({1, 2, 4, 0, 5, 3}).flatten(3);
}

/// The reverse. patches: [3 * size * size, T, H, W]. Returns [3, T, size * H, size * W].
at::Tensor unpatchify(const at::Tensor &patches, int64_t size) {
  if (size == 1) return patches;
  const at::Tensor pixels = patches.unflatten(0, {3, size, size});  // [3, columns, rows, T, H, W]
  return pixels.permute({0, 3, 4, 2, 5, 1}).flatten(4).flatten(2, 3);
}

}  // namespace

const std::vector<std::string> AutoencoderKLWan::kEncoderTensors = {"encoder.", "quant_conv."};

AutoencoderKLWan::AutoencoderKLWan(const VaeConfig &config, const Weights &weights,
                                   std::optional<at::ScalarType> encoder_dtype)
    : config_(config),
      dtype_(weights.dtype()),
      latents_mean_(per_channel(config.latents_mean)),
      latents_inverse_std_(per_channel(config.latents_std).reciprocal()),
      post_quant_conv_(weights / "post_quant_conv", config.z_dim, config.z_dim),
      decoder_(config, weights / "decoder") {
  if (encoder_dtype) encoder_.emplace(config, weights, *encoder_dtype);
}

// quant_conv is a small matrix, and what it makes is float32.
AutoencoderKLWan::Encoder::Encoder(const VaeConfig &config, const Weights &weights, at::ScalarType dtype)
    : dtype(dtype),
      encoder(config, (weights / "encoder").as(dtype)),
      quant_conv((weights / "quant_conv").as(at::kFloat), 2 * config.z_dim, 2 * config.z_dim) {}

at::Tensor AutoencoderKLWan::denormalize(const at::Tensor &latents) const {
  // Dividing by the reciprocal, not multiplying: the rounding is Diffusers'.
  return latents.to(at::kFloat) / latents_inverse_std_.to(latents.device()) +
         latents_mean_.to(latents.device());
}

at::Tensor AutoencoderKLWan::normalize(const at::Tensor &latents) const {
  return (latents - latents_mean_.to(latents.device())) * latents_inverse_std_.to(latents.device());
}

at::Tensor AutoencoderKLWan::decode(const at::Tensor &latent, StreamState &state,
                                    const RunContext &context) const {
  return decode_unclamped(latent, state, context).clamp_(-1, 1);
}

at::Tensor AutoencoderKLWan::decode_next(const at::Tensor &latent, StreamState &state,
                                         const RunContext &context) const {
  return decode(denormalize(latent), state, context);
}

at::Tensor AutoencoderKLWan::decode_unclamped(const at::Tensor &latent, StreamState &state,
                                              const RunContext &context) const {
  const at::Tensor z = latent[0].permute({1, 2, 3, 0}).to(dtype_).contiguous();
  return unpatchify(decoder_(post_quant_conv_(z), state, context), config_.patch_size).unsqueeze(0);
}

at::Tensor AutoencoderKLWan::encode(const Video &video, const RunContext &context) const {
  const int64_t frames = config_.temporal_scale(), chunks = 1 + (video.frames() - 1) / frames;
  StreamState state;
  std::vector<at::Tensor> latents;
  for (int64_t i = 0; i < chunks; ++i) {
    const int64_t begin = i == 0 ? 0 : 1 + (i - 1) * frames, count = i == 0 ? 1 : frames;
    latents.push_back(encode_chunk(video.part(begin, count), state, context, video.is_grey(begin, count)));
  }
  return at::cat(latents, 2);
}

at::Tensor AutoencoderKLWan::encode_chunk(const at::Tensor &chunk, StreamState &state,
                                          const RunContext &context, bool still) const {
  const at::Tensor moved = chunk[0].to(encoder_->quant_conv.device());
  const at::Tensor frames = patchify(moved, config_.patch_size).to(encoder_->dtype).contiguous();
  const at::Tensor moments = encoder_->quant_conv(encoder_->encoder(frames, state, context, still));
  return moments.narrow(3, 0, config_.z_dim).permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

uint64_t AutoencoderKLWan::decode_bytes(int64_t height, int64_t width) const {
  return bytes_of(decoder_values(config_, dtype_, post_quant_conv_.device()), dtype_, height, width);
}

uint64_t AutoencoderKLWan::encode_bytes(int64_t height, int64_t width) const {
  return bytes_of(encoder_values(config_), encoder_->dtype, height, width);
}

}  // namespace wan
