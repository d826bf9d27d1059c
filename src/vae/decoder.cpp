// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace wan {

namespace {

/// The channels that a stage takes: those of the stage before, of which an upsampling leaves half where no
/// shortcut leads around it.
int64_t up_block_input(const VaeConfig &config, size_t stage) {
  const std::vector<int64_t> dims = config.decoder_dims();
  if (stage == 0) return dims.front();
  return config.is_residual ? dims[stage - 1] : dims[stage - 1] / 2;
}

Weights upsampler(const VaeConfig &config, const Weights &up_block) {
  return config.is_residual ? up_block / "upsampler" : up_block / "upsamplers" / 0;
}

WanUpBlock make_up_block(const VaeConfig &config, const Weights &weights, size_t stage) {
  const int64_t dim = config.decoder_dims()[stage];
  WanUpBlock block;
  for (int64_t j = 0; j <= config.num_res_blocks; ++j)
    block.resnets.emplace_back(weights / "resnets" / j, j == 0 ? up_block_input(config, stage) : dim, dim);
  if (stage + 1 < config.dim_mult.size())
    block.upsampler.emplace(upsampler(config, weights), dim, up_block_input(config, stage + 1),
                            config.temporal_upsample[stage]);
  return block;
}

}  // namespace

WanDecoder3d::WanDecoder3d(const VaeConfig &config, const Weights &weights)
    : is_residual_(config.is_residual),
      conv_in_(weights / "conv_in", config.z_dim, config.decoder_dims().front(), 3),
      mid_block_(weights / "mid_block", config.decoder_dims().front()),
      norm_out_(load_gamma(weights / "norm_out", config.decoder_dims().back())),
      conv_out_(weights / "conv_out", config.decoder_dims().back(), config.picture_channels(), 3) {
  for (size_t i = 0; i < config.dim_mult.size(); ++i)
    up_blocks_.push_back(make_up_block(config, weights / "up_blocks" / static_cast<int64_t>(i), i));
}

at::Tensor WanDecoder3d::operator()(const at::Tensor &latent, StreamState &state,
                                    const RunContext &context) const {
  const ConvResult x = conv_in_(latent, state, {.next_gamma = mid_block_.norm1()});
  Frames video;
  ascend(0, mid_block_(x, state, {.next_gamma = up_blocks_.front().resnets.front().norm1()}), state, context,
         video);
  state.end_chunk();
  return at::cat(video, 1);
}

Epilogue WanDecoder3d::behind(size_t stage, size_t resnet) const {
  const WanUpBlock &block = up_blocks_[stage];
  if (resnet + 1 < block.resnets.size()) return {.next_gamma = block.resnets[resnet + 1].norm1()};
  if (block.upsampler) return {};
  return {.next_gamma = norm_out_, .keep_out = false};
}

Frames WanDecoder3d::shortcuts(const WanUpBlock &block, const at::Tensor &x) const {
  if (!block.upsampler) return {};
  if (!is_residual_) return Frames(block.upsampler->parts(x).size());
  return block.upsampler->parts(block.resnets.front().overwrites_input() ? x.clone() : x);
}

ConvResult WanDecoder3d::upsample(size_t stage, at::Tensor part, const at::Tensor &shortcut,
                                  StreamState &state) const {
  const WanUpsample &upsampler = *up_blocks_[stage].upsampler;
  Epilogue next = {.next_gamma = up_blocks_[stage + 1].resnets.front().norm1()};
  if (shortcut.defined())
    next.residual = duplicate_up(shortcut, part.size(3), upsampler.temporal(), state.first_chunk());
  part = upsampler.double_frames(part, state);
  return upsampler.double_size(part, next);
}

void WanDecoder3d::ascend(size_t stage, ConvResult x, StreamState &state, const RunContext &context,
                          Frames &video) const {
  const WanUpBlock &block = up_blocks_[stage];
  Frames around = shortcuts(block, x.out);
  for (size_t i = 0; i < block.resnets.size(); ++i) {
    context.check();
    x = block.resnets[i](x, state, behind(stage, i));
  }
  if (!block.upsampler) {
    video.push_back(conv_out_(x.activated, state, {.float32 = true}).out.permute({3, 0, 1, 2}));
    return;
  }
  Frames parts = block.upsampler->parts(x.out);
  x = {};
  for (size_t i = 0; i < parts.size(); ++i) {
    // What this stage made is not kept while the next one, which needs more memory, works on it.
    ConvResult doubled = upsample(stage, std::exchange(parts[i], {}), std::exchange(around[i], {}), state);
    ascend(stage + 1, std::move(doubled), state, context, video);
  }
}

int64_t decoder_values(const VaeConfig &config, at::ScalarType dtype, at::Device device) {
  const std::vector<int64_t> dims = config.decoder_dims();
  // Two frames of history for each causal convolution's input, and those of the largest layer.
  int64_t history = 2 * (config.z_dim + 4 * dims.front());
  int64_t largest_layer = 0, area = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t convs = 2 * (config.num_res_blocks + 1), in = up_block_input(config, i);
    history += 2 * area * (in + (convs - 1) * dims[i]);
    largest_layer = std::max(largest_layer, kFramesAtOnce * area * std::max(in, dims[i]));
    if (i + 1 == dims.size()) break;
    if (config.temporal_upsample[i]) history += 2 * area * dims[i];
    area *= 4;
  }
  history += 2 * area * dims.back();
  // Beside the history: a convolution's input, the residual and the output, the input that a shortcut around
  // the stage still needs, and the frames in float32.
  int64_t layers_alive = config.is_residual ? 4 : 3;
  const int64_t frames =
      config.temporal_scale() * area * config.picture_channels() * 4 / c10::elementSize(dtype);
  // Where each step is one of its own: either the frames that one output frame sees or, of bfloat16, the
  // norm's two steps in float32.
  if (!has_fused_conv(dims.back(), dtype, device)) layers_alive += 4;
  return history + layers_alive * largest_layer + frames;
}

}  // namespace wan
