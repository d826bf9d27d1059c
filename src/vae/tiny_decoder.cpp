// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/tiny_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "vae/causal_conv.h"

namespace wan {

namespace {

constexpr int64_t kBlocksOfStage = 3;
/// A stage's layers in the published files: three blocks, the doubling of the size, that of the frames, and a
/// convolution. Before the first stage are the clamp, a convolution and its activation.
constexpr int64_t kFirstStage = 3, kLayersOfStage = 6, kGrow = 4, kUpsample = 5;
/// Latents beyond it hardly count.
constexpr double kClamp = 3;
/// Of the frames that the first latent makes: it stands for one alone.
constexpr int64_t kTrimmedFrames = 3;

at::Tensor load_conv(const Weights &weights, int64_t in, int64_t out) {
  return weights("weight", {out, in, 3, 3}).contiguous(at::MemoryFormat::ChannelsLast);
}

/// Padded with zeros. x: [T, H, W, Cin]; weight: [Cout, Cin, 3, 3]. Returns [T, H, W, Cout].
at::Tensor conv2d(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
  return at::conv2d(x.permute({0, 3, 1, 2}), weight, bias, /*stride=*/1, /*padding=*/1)
      .permute({0, 2, 3, 1})
      .contiguous();
}

/// The frame before each one; the first of a stream has zeros before it.
at::Tensor frames_before(const at::Tensor &x, const Frames &history) {
  const at::Tensor first = history.empty() ? at::zeros_like(x[0]) : history.back();
  return at::cat({first.unsqueeze(0), x.narrow(0, 0, x.size(0) - 1)});
}

}  // namespace

MemBlock::MemBlock(const Weights &weights, int64_t channels) {
  for (const int64_t layer : {0, 2, 4}) {
    const Weights conv = weights / "conv" / layer;
    convs_.push_back(
        {load_conv(conv, layer == 0 ? 2 * channels : channels, channels), conv("bias", {channels})});
  }
}

at::Tensor MemBlock::operator()(const at::Tensor &x, StreamState &state) const {
  Frames &history = state.history(this);
  at::Tensor y = at::cat({x, frames_before(x, history)}, -1);
  history = {x[x.size(0) - 1].clone()};
  for (size_t i = 0; i < convs_.size(); ++i) {
    y = conv2d(y, convs_[i].weight, convs_[i].bias);
    if (i + 1 < convs_.size()) y.relu_();
  }
  return y.add_(x).relu_();
}

TinyDecoder::TinyDecoder(const TinyDecoderConfig &config, const Weights &weights)
    : config_(config),
      dtype_(weights.dtype()),
      in_weight_(load_conv(weights / "decoder" / 1, config.z_dim, config.channels.front())),
      in_bias_((weights / "decoder" / 1)("bias", {config.channels.front()})),
      out_weight_(load_conv(weights / "decoder" / config.last_layer(), config.channels.back(),
                            config.picture_channels())),
      out_bias_((weights / "decoder" / config.last_layer())("bias", {config.picture_channels()})) {
  for (size_t i = 0; i + 1 < config.channels.size(); ++i) {
    const int64_t in = config.channels[i], out = config.channels[i + 1];
    const int64_t layer = kFirstStage + static_cast<int64_t>(i) * kLayersOfStage;
    Stage &stage = stages_.emplace_back();
    for (int64_t block = 0; block < kBlocksOfStage; ++block)
      stage.blocks.emplace_back(weights / "decoder" / (layer + block), in);
    const int64_t rows = TinyDecoderConfig::frames_grown(i) * in;
    stage.grow = (weights / "decoder" / (layer + kGrow) / "conv")("weight", {rows, in, 1, 1}).flatten(1);
    const Weights wide = (weights / "decoder" / (layer + kUpsample)).as(at::kFloat);
    const at::Tensor weight = wide("weight", {out, in, 3, 3});
    stage.upsample = ConvWeight::upsample(weight, at::zeros({out}, weight.options()), weights.dtype());
  }
}

/// A pixel of a frame does not see its neighbours here, so this may come before the doubling of the size.
at::Tensor TinyDecoder::grow_frames(const at::Tensor &x, const Stage &stage) const {
  const at::Tensor grown = at::linear(x, stage.grow).unflatten(-1, {-1, x.size(-1)});  // [T, H, W, N, C]
  return grown.movedim(3, 1).flatten(0, 1).contiguous();
}

at::Tensor TinyDecoder::decode_next(const at::Tensor &latent, StreamState &state,
                                    const RunContext &context) const {
  at::Tensor x = latent[0].permute({1, 2, 3, 0}).to(dtype_).contiguous();
  x = conv2d(at::tanh(x / kClamp) * kClamp, in_weight_, in_bias_).relu_();
  for (const Stage &stage : stages_) {
    context.check();
    for (const MemBlock &block : stage.blocks) x = block(x, state);
    x = upsample_conv2d(grow_frames(x, stage), stage.upsample, {}).out;
  }
  x = conv2d(x.relu_(), out_weight_, out_bias_);
  if (state.first_chunk()) x = x.narrow(0, kTrimmedFrames, x.size(0) - kTrimmedFrames);
  state.end_chunk();
  const at::Tensor pictures = at::pixel_shuffle(x.permute({0, 3, 1, 2}).to(at::kFloat), config_.patch_size);
  return pictures.clamp(0, 1).mul_(2).sub_(1).transpose(0, 1).contiguous().unsqueeze(0);
}

/// Of the largest size: what goes into the last convolution but one and comes out of it, and its parts.
uint64_t TinyDecoder::decode_bytes(int64_t height, int64_t width) const {
  int64_t history = 0, largest = 0, area = 1, frames = 1;
  for (size_t i = 0; i < stages_.size(); ++i) {
    history += kBlocksOfStage * area * config_.channels[i];
    frames *= TinyDecoderConfig::frames_grown(i);
    area *= 4;
    largest = std::max(largest, frames * area * std::max(config_.channels[i], config_.channels[i + 1]));
  }
  const int64_t pictures = 3 * frames * area * config_.picture_channels();
  const auto pixels = static_cast<uint64_t>(height * width);
  constexpr int64_t kLayersAlive = 3;
  return pixels * (static_cast<uint64_t>(history + kLayersAlive * largest) * c10::elementSize(dtype_) +
                   static_cast<uint64_t>(pictures) * sizeof(float));
}

}  // namespace wan
