// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/autoencoder_kl_wan.h"

#include <ATen/ATen.h>

#include <utility>

#include "ops/attention.h"
#include "ops/rms_norm.h"

namespace wan {

namespace {

/// So many frames at a time go through the stages: two, which then are the history of the next two. So no
/// frame is copied, and the memory of one pair is free for the pair after the next.
constexpr int64_t kFramesAtOnce = 2;

at::Tensor gamma(const Weights &weights, int64_t dim) {
  return weights.as(at::kFloat)("gamma", {dim, 1, 1, 1}).view(dim);
}

ConvWeight upsample_weight(const Weights &weights, int64_t in, int64_t out) {
  const Weights wide = weights.as(at::kFloat);
  return ConvWeight::upsample(wide("weight", {out, in, 3, 3}), wide("bias", {out}), weights.dtype());
}

at::Tensor per_channel(const std::vector<double> &values) {
  return at::tensor(values, at::kFloat).view({1, -1, 1, 1, 1});
}

}  // namespace

WanResidualBlock::WanResidualBlock(const Weights &weights, int64_t in, int64_t out)
    : norm1_(gamma(weights / "norm1", in)),
      conv1_(weights / "conv1", in, out, 3),
      norm2_(gamma(weights / "norm2", out)),
      conv2_(weights / "conv2", out, out, 3) {
  if (in != out) conv_shortcut_.emplace(weights / "conv_shortcut", in, out);
}

ConvResult WanResidualBlock::operator()(const ConvResult &x, StreamState &state, Epilogue next) const {
  const ConvResult y = conv1_(x.activated, state, {.next_gamma = norm2_, .keep_out = false});
  next.residual = conv_shortcut_ ? (*conv_shortcut_)(x.out) : x.out;
  return conv2_(y.activated, state, next);
}

WanAttentionBlock::WanAttentionBlock(const Weights &weights, int64_t dim)
    : norm_((weights / "norm").as(at::kFloat)("gamma", {dim, 1, 1}).view(dim)),
      to_qkv_(weights / "to_qkv", dim, 3 * dim, 2),
      proj_(weights / "proj", dim, dim, 2) {}

at::Tensor WanAttentionBlock::operator()(const at::Tensor &x) const {
  const at::Tensor qkv = to_qkv_(rms_norm(x, norm_, /*silu=*/false)).flatten(1, 2).unsqueeze(1);
  const std::vector<at::Tensor> parts = qkv.chunk(3, -1);  // [T, 1, H * W, C] each
  return proj_(wide_head_attention(parts[0], parts[1], parts[2]).reshape(x.sizes())) + x;
}

WanUpsample::WanUpsample(const Weights &weights, int64_t in, int64_t out, bool temporal)
    : conv_(upsample_weight(weights / "resample.1", in, out)) {
  if (temporal) time_conv_.emplace(weights / "time_conv", in, 2 * in, 1);
}

at::Tensor WanUpsample::double_frames(const at::Tensor &x, StreamState &state) const {
  // The first latent frame stands for one frame only, and the temporal convolution never sees it.
  return time_conv_ && !state.first_chunk() ? time_conv_->double_frames(x, state) : x;
}

ConvResult WanUpsample::double_size(const at::Tensor &x, const Epilogue &next) const {
  return upsample_conv2d(x, conv_, next);
}

const std::vector<std::string> AutoencoderKLWan::kEncoderTensors = {"encoder.", "quant_conv."};

AutoencoderKLWan::AutoencoderKLWan(const VaeConfig &config, const Weights &weights)
    : config_(config),
      dtype_(weights.dtype()),
      latents_mean_(per_channel(config.latents_mean)),
      latents_inverse_std_(per_channel(config.latents_std).reciprocal()),
      post_quant_conv_(weights / "post_quant_conv", config.z_dim, config.z_dim),
      conv_in_(weights / "decoder.conv_in", config.z_dim, config.decoder_dims().front(), 3),
      mid_first_(weights / "decoder.mid_block.resnets" / 0, config.decoder_dims().front(),
                 config.decoder_dims().front()),
      mid_attention_(weights / "decoder.mid_block.attentions" / 0, config.decoder_dims().front()),
      mid_second_(weights / "decoder.mid_block.resnets" / 1, config.decoder_dims().front(),
                  config.decoder_dims().front()),
      norm_out_(gamma(weights / "decoder.norm_out", config.decoder_dims().back())),
      conv_out_(weights / "decoder.conv_out", config.decoder_dims().back(), 3, 3) {
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
      block.upsampler.emplace(up / "upsamplers" / 0, in, in / 2, config.temporal_upsample[i]);
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

ConvResult AutoencoderKLWan::enter(const at::Tensor &latent, StreamState &state) const {
  const at::Tensor z = latent[0].permute({1, 2, 3, 0}).to(dtype_).contiguous();
  ConvResult x = conv_in_(post_quant_conv_(z), state, {.next_gamma = mid_first_.norm1()});
  x.out = mid_attention_(mid_first_(x, state, {}).out);
  x.activated = rms_norm(x.out, mid_second_.norm1(), /*silu=*/true);
  return mid_second_(x, state, {.next_gamma = up_blocks_.front().resnets.front().norm1()});
}

Epilogue AutoencoderKLWan::behind(size_t stage, size_t resnet) const {
  const WanUpBlock &block = up_blocks_[stage];
  if (resnet + 1 < block.resnets.size()) return {.next_gamma = block.resnets[resnet + 1].norm1()};
  if (block.upsampler) return {};
  return {.next_gamma = norm_out_, .keep_out = false};
}

void AutoencoderKLWan::ascend(size_t stage, ConvResult x, StreamState &state, const RunContext &context,
                              Frames &video) const {
  const WanUpBlock &block = up_blocks_[stage];
  for (size_t i = 0; i < block.resnets.size(); ++i) {
    context.check();
    x = block.resnets[i](x, state, behind(stage, i));
  }
  if (!block.upsampler) {
    video.push_back(conv_out_(x.activated, state, {.float32 = true}).out.permute({3, 0, 1, 2}));
    return;
  }
  const WanUpsample &upsampler = *block.upsampler;
  Frames parts = x.out.split(upsampler.frames_to_take(kFramesAtOnce));
  x = {};
  const Epilogue next = {.next_gamma = up_blocks_[stage + 1].resnets.front().norm1()};
  for (at::Tensor &part : parts) {
    // What this stage made is not kept while the next one, which needs more memory, works on it.
    ConvResult doubled = upsampler.double_size(upsampler.double_frames(std::exchange(part, {}), state), next);
    ascend(stage + 1, std::move(doubled), state, context, video);
  }
}

at::Tensor AutoencoderKLWan::decode(const at::Tensor &latent, StreamState &state,
                                    const RunContext &context) const {
  return decode_unclamped(latent, state, context).clamp_(-1, 1);
}

at::Tensor AutoencoderKLWan::decode_unclamped(const at::Tensor &latent, StreamState &state,
                                              const RunContext &context) const {
  Frames video;
  ascend(0, enter(latent, state), state, context, video);
  state.end_chunk();
  return at::cat(video, 1).unsqueeze(0);
}

uint64_t AutoencoderKLWan::decode_bytes(int64_t height, int64_t width) const {
  const std::vector<int64_t> dims = config_.decoder_dims();
  // Values for each latent pixel: two frames of history for each causal convolution's input, and those of the
  // largest layer.
  int64_t history = 2 * (config_.z_dim + 4 * dims.front());
  int64_t largest_layer = 0, in = dims.front(), area = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t convs = 2 * (config_.num_res_blocks + 1);
    history += 2 * area * (in + (convs - 1) * dims[i]);
    largest_layer = std::max(largest_layer, kFramesAtOnce * area * std::max(in, dims[i]));
    if (i + 1 == dims.size()) break;
    if (config_.temporal_upsample[i]) history += 2 * area * dims[i];
    in = dims[i] / 2;
    area *= 4;
  }
  history += 2 * area * dims.back();
  // Beside the history: a convolution's input, the residual and the output, and either the frames that one
  // output frame sees or, of bfloat16, the norm's two steps in float32.
  constexpr int64_t kLayersAlive = 3 + 4;
  const auto values = static_cast<uint64_t>(history + kLayersAlive * largest_layer);
  return values * c10::elementSize(dtype_) * static_cast<uint64_t>(height * width);
}

}  // namespace wan
