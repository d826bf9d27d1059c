// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/encoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "ops/rms_norm.h"

namespace wan {

namespace {

bool halves_frames(const VaeConfig &config, size_t stage) {
  return config.temporal_upsample[config.temporal_upsample.size() - 1 - stage];
}

/// The channels that a stage takes.
int64_t down_block_input(const VaeConfig &config, size_t stage) {
  return stage == 0 ? config.base_dim : config.encoder_dims()[stage - 1];
}

/// Where the weights of a stage's parts are: each stage's by themselves, or those of all in one row.
Weights stage_part(const VaeConfig &config, const Weights &blocks, size_t stage, int64_t part) {
  if (!config.is_residual) return blocks / (static_cast<int64_t>(stage) * (config.num_res_blocks + 1) + part);
  const Weights block = blocks / static_cast<int64_t>(stage);
  return part < config.num_res_blocks ? block / "resnets" / part : block / "downsampler";
}

WanDownBlock make_down_block(const VaeConfig &config, const Weights &blocks, size_t stage) {
  WanDownBlock block{.dim = config.encoder_dims()[stage]};
  for (int64_t j = 0; j < config.num_res_blocks; ++j)
    block.resnets.emplace_back(stage_part(config, blocks, stage, j),
                               j == 0 ? down_block_input(config, stage) : block.dim, block.dim);
  if (stage + 1 < config.dim_mult.size())
    block.downsampler.emplace(stage_part(config, blocks, stage, config.num_res_blocks), block.dim,
                              halves_frames(config, stage));
  return block;
}

/// Frames of the stages' results, one after the other.
at::Tensor join(const Frames &parts) {
  return parts.size() == 1 ? parts[0] : at::cat(parts);
}

}  // namespace

WanEncoder3d::WanEncoder3d(const VaeConfig &config, const Weights &weights)
    : is_residual_(config.is_residual),
      conv_in_(weights / "conv_in", config.picture_channels(), config.base_dim, 3),
      mid_block_(weights / "mid_block", config.encoder_dims().back()),
      norm_out_(load_gamma(weights / "norm_out", config.encoder_dims().back())),
      conv_out_(weights / "conv_out", config.encoder_dims().back(), 2 * config.z_dim, 3) {
  for (size_t i = 0; i < config.dim_mult.size(); ++i)
    down_blocks_.push_back(make_down_block(config, weights / "down_blocks", i));
}

at::Tensor WanEncoder3d::operator()(const at::Tensor &frames, StreamState &state, const RunContext &context,
                                    bool still) const {
  at::Tensor x = frames;
  for (size_t stage = 0; stage < down_blocks_.size(); ++stage) {
    StreamState::Still &before = state.still(stage);
    if (still && before.out.defined()) {
      x = before.out.clone();  // the next stage may put its output in the place of its input
      continue;
    }
    const at::Tensor out = compute(stage, x, state, context);
    const bool settled = still && before.frames >= reach(stage);
    before = still ? StreamState::Still{before.frames + x.size(0), settled ? out.clone() : at::Tensor()}
                   : StreamState::Still();
    still = settled;
    x = out;
  }
  const ConvResult y = mid_block_({.out = x, .activated = rms_norm(x, mid_block_.norm1(), /*silu=*/true)},
                                  state, {.next_gamma = norm_out_, .keep_out = false});
  state.end_chunk();
  return conv_out_(y.activated, state, {.float32 = true}).out;
}

at::Tensor WanEncoder3d::compute(size_t stage, const at::Tensor &x, StreamState &state,
                                 const RunContext &context) const {
  Frames parts;
  for (const at::Tensor &part : x.split(kFramesAtOnce)) parts.push_back(descend(stage, part, state, context));
  return join(parts);
}

int64_t WanEncoder3d::reach(size_t stage) const {
  const WanDownBlock &block = down_blocks_[stage];
  const auto convs = static_cast<int64_t>(2 * block.resnets.size() + (stage == 0 ? 1 : 0));
  return 2 * convs + (block.downsampler && block.downsampler->temporal() ? 2 : 0);
}

ConvResult WanEncoder3d::enter(size_t stage, const at::Tensor &x, StreamState &state) const {
  const at::Tensor &norm = down_blocks_[stage].resnets.front().norm1();
  if (stage == 0) return conv_in_(x, state, {.next_gamma = norm});
  return {.out = x, .activated = rms_norm(x, norm, /*silu=*/true)};
}

at::Tensor WanEncoder3d::descend(size_t stage, const at::Tensor &x, StreamState &state,
                                 const RunContext &context) const {
  const WanDownBlock &block = down_blocks_[stage];
  ConvResult y = enter(stage, x, state);
  at::Tensor shortcut;
  if (is_residual_)
    shortcut = average_down(y.out, block.dim, block.downsampler && block.downsampler->temporal() ? 2 : 1,
                            block.downsampler ? 2 : 1);
  for (size_t i = 0; i < block.resnets.size(); ++i) {
    context.check();
    Epilogue next;
    if (i + 1 < block.resnets.size()) next.next_gamma = block.resnets[i + 1].norm1();
    y = block.resnets[i](y, state, next);
  }
  if (block.downsampler) return (*block.downsampler)(y.out, shortcut, state);
  return is_residual_ ? y.out + shortcut : y.out;
}

int64_t encoder_values(const VaeConfig &config) {
  const std::vector<int64_t> dims = config.encoder_dims();
  int64_t area = config.patches_scale() * config.patches_scale();
  // Two frames of history for each causal convolution's input, and those of the largest layer.
  int64_t history = 2 * area * config.picture_channels(), largest_layer = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t convs = 2 * config.num_res_blocks, in = down_block_input(config, i);
    history += 2 * area * (in + (convs - 1) * dims[i]);
    largest_layer = std::max(largest_layer, kFramesAtOnce * area * std::max(in, dims[i]));
    if (i + 1 == dims.size()) break;
    area /= 4;
    if (halves_frames(config, i)) history += 2 * area * dims[i];
  }
  history += 2 * area * 5 * dims.back();
  // As in the decoder, and what the first stage made of the frames before.
  constexpr int64_t kLayersAlive = 3 + 4 + 1;
  return history + kLayersAlive * largest_layer;
}

}  // namespace wan
