#include "vae/autoencoder_kl_wan.h"

#include <ATen/ATen.h>

#include <cmath>

#include "device.h"

namespace wan {

namespace {

/// RMS over the channels (diffusers WanRMS_norm). In low precision the normalisation is done in float32.
at::Tensor rms_norm(const at::Tensor &x, const at::Tensor &gamma) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor length = at::norm(wide, 2, {1}, /*keepdim=*/true).clamp_min(1e-12);
  return (wide / length).to(x.scalar_type()) * std::sqrt(static_cast<double>(x.size(1))) * gamma;
}

at::Tensor gamma(const Weights &weights, int64_t dim) {
  return weights("gamma", {dim, 1, 1, 1});
}

at::Tensor per_channel(const std::vector<double> &values) {
  return at::tensor(values, at::kFloat).view({1, -1, 1, 1, 1});
}

}  // namespace

WanResidualBlock::WanResidualBlock(const Weights &weights, int64_t in, int64_t out)
    : norm1_(gamma(weights / "norm1", in)),
      conv1_(weights / "conv1", in, out, 3, 3),
      norm2_(gamma(weights / "norm2", out)),
      conv2_(weights / "conv2", out, out, 3, 3) {
  if (in != out) conv_shortcut_.emplace(weights / "conv_shortcut", in, out);
}

at::Tensor WanResidualBlock::operator()(const at::Tensor &x, StreamState &state) const {
  const at::Tensor shortcut = conv_shortcut_ ? (*conv_shortcut_)(x) : x;
  at::Tensor y = conv1_(at::silu(rms_norm(x, norm1_)), state);
  y = conv2_(at::silu(rms_norm(y, norm2_)), state);
  return y + shortcut;
}

WanAttentionBlock::WanAttentionBlock(const Weights &weights, int64_t dim)
    : norm_((weights / "norm")("gamma", {dim, 1, 1}).unsqueeze(-1)),
      to_qkv_(weights / "to_qkv", dim, 3 * dim, 1),
      proj_(weights / "proj", dim, dim, 1) {}

at::Tensor WanAttentionBlock::operator()(const at::Tensor &x) const {
  const int64_t batch = x.size(0), frames = x.size(2), height = x.size(3), width = x.size(4);
  const at::Tensor qkv = to_qkv_(rms_norm(x, norm_));
  // [B, 3C, T, H, W] to [B * T, 1, H * W, 3C]
  const at::Tensor tokens = qkv.permute({0, 2, 3, 4, 1}).reshape({batch * frames, 1, height * width, -1});
  const std::vector<at::Tensor> parts = tokens.contiguous().chunk(3, -1);
  const at::Tensor out = at::scaled_dot_product_attention(parts[0], parts[1], parts[2]);
  return proj_(out.reshape({batch, frames, height, width, -1}).permute({0, 4, 1, 2, 3})) + x;
}

WanUpsample::WanUpsample(const Weights &weights, int64_t dim, bool temporal)
    : conv_(weights / "resample.1", dim, dim / 2, 3) {
  if (temporal) time_conv_.emplace(weights / "time_conv", dim, 2 * dim, 3, 1);
}

/// The convolution's channels are two groups: the even and the odd frames.
at::Tensor WanUpsample::double_frames(const at::Tensor &x, StreamState &state) const {
  const at::Tensor pairs = (*time_conv_)(x, state).unflatten(1, {2, -1});  // [B, 2, C, T, H, W]
  return pairs.permute({0, 2, 3, 1, 4, 5}).flatten(2, 3);
}

at::Tensor WanUpsample::operator()(const at::Tensor &x, StreamState &state) const {
  // The first latent frame stands for one frame only, and the temporal convolution never sees it.
  const at::Tensor frames = time_conv_ && !state.first_chunk() ? double_frames(x, state) : x;
  const at::Tensor doubled = frames.repeat_interleave(2, 3).repeat_interleave(2, 4);
  return conv_(doubled);
}

const std::vector<std::string> AutoencoderKLWan::kEncoderTensors = {"encoder.", "quant_conv."};

AutoencoderKLWan::AutoencoderKLWan(const VaeConfig &config, const Weights &weights)
    : config_(config),
      latents_mean_(per_channel(config.latents_mean)),
      latents_inverse_std_(per_channel(config.latents_std).reciprocal()),
      post_quant_conv_(weights / "post_quant_conv", config.z_dim, config.z_dim),
      conv_in_(weights / "decoder.conv_in", config.z_dim, config.decoder_dims().front(), 3, 3),
      mid_first_(weights / "decoder.mid_block.resnets" / 0, config.decoder_dims().front(),
                 config.decoder_dims().front()),
      mid_attention_(weights / "decoder.mid_block.attentions" / 0, config.decoder_dims().front()),
      mid_second_(weights / "decoder.mid_block.resnets" / 1, config.decoder_dims().front(),
                  config.decoder_dims().front()),
      norm_out_(gamma(weights / "decoder.norm_out", config.decoder_dims().back())),
      conv_out_(weights / "decoder.conv_out", config.decoder_dims().back(), 3, 3, 3) {
  const std::vector<int64_t> dims = config.decoder_dims();
  int64_t in = dims.front();
  for (size_t i = 0; i < dims.size(); ++i) {
    const Weights up = weights / "decoder.up_blocks" / static_cast<int64_t>(i);
    WanUpBlock block;
    for (int64_t j = 0; j <= config.num_res_blocks; ++j) {
      block.resnets.emplace_back(up / "resnets" / j, in, dims[i]);
      in = dims[i];
    }
    if (i + 1 < dims.size()) {
      block.upsampler.emplace(up / "upsamplers" / 0, in, config.temporal_upsample[i]);
      in /= 2;
    }
    up_blocks_.push_back(std::move(block));
  }
}

at::Tensor AutoencoderKLWan::denormalize(const at::Tensor &latents) const {
  // Dividing by the reciprocal, not multiplying: the rounding is Diffusers'.
  return latents.to(at::kFloat) / latents_inverse_std_.to(latents.device()) +
         latents_mean_.to(latents.device());
}

at::Tensor AutoencoderKLWan::decode(const at::Tensor &latent, StreamState &state,
                                    const RunContext &context) const {
  at::Tensor x = conv_in_(post_quant_conv_(latent), state);
  x = mid_second_(mid_attention_(mid_first_(x, state)), state);
  LaunchWindow window(x.device());
  for (const WanUpBlock &block : up_blocks_) {
    for (const WanResidualBlock &resnet : block.resnets) {
      context.check();
      x = resnet(x, state);
      window.advance();
    }
    if (block.upsampler) x = (*block.upsampler)(x, state);
  }
  x = conv_out_(at::silu(rms_norm(x, norm_out_)), state);
  state.end_chunk();
  return x.clamp(-1, 1);
}

uint64_t AutoencoderKLWan::decode_bytes(int64_t height, int64_t width) const {
  const std::vector<int64_t> dims = config_.decoder_dims();
  int64_t per_latent_pixel =
      CausalConv3d::cache_bytes(config_.z_dim) + 4 * CausalConv3d::cache_bytes(dims.front());
  int64_t in = dims.front(), area = 1, frames = 1;
  int64_t largest_layer = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t convs = 2 * (config_.num_res_blocks + 1);
    per_latent_pixel +=
        area * (CausalConv3d::cache_bytes(in) + (convs - 1) * CausalConv3d::cache_bytes(dims[i]));
    if (i + 1 < dims.size() && config_.temporal_upsample[i]) {
      per_latent_pixel += area * CausalConv3d::cache_bytes(dims[i]);
      frames *= 2;
    }
    in = dims[i] / 2;
    if (i + 1 < dims.size()) area *= 4;
    largest_layer = std::max(largest_layer, area * frames * std::max(in, dims[i]) * int64_t{sizeof(float)});
  }
  per_latent_pixel += area * CausalConv3d::cache_bytes(dims.back());
  // A residual block holds its input, the normalised copy, the same with its cache in front, and its output.
  const int64_t layers_alive = 5;
  return static_cast<uint64_t>(per_latent_pixel + layers_alive * largest_layer) *
         static_cast<uint64_t>(height) * static_cast<uint64_t>(width);
}

}  // namespace wan
