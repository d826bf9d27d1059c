// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The blocks that encoder and decoder of the Wan VAE are built of, by their names in
// diffusers.models.autoencoders.autoencoder_kl_wan. Activations are [T, H, W, C].
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "checkpoint/weights.h"
#include "vae/causal_conv.h"

namespace wan {

/// So many frames at a time go through the stages: two, which then are the history of the next two. So no
/// frame is copied, and the memory of one pair is free for the pair after the next.
constexpr int64_t kFramesAtOnce = 2;

/// The factors of a norm, [dim] float32.
at::Tensor load_gamma(const Weights &weights, int64_t dim);

/// A block is handed its input together with SiLU(norm1(input)), and hands on its output together with what
/// the norm behind it makes of it: the convolutions' epilogues do all of this.
class WanResidualBlock {
 public:
  WanResidualBlock(const Weights &weights, int64_t in, int64_t out);
  /// x: [T, H, W, in] twice. next: without a residual. Returns [T, H, W, out].
  ConvResult operator()(const ConvResult &x, StreamState &state, Epilogue next) const;
  /// The gamma of the norm in front, [in].
  const at::Tensor &norm1() const { return norm1_; }
  /// Whether the output may be put in the input's place.
  bool overwrites_input() const { return !conv_shortcut_; }

 private:
  const at::Tensor norm1_;
  const CausalConv3d conv1_;
  const at::Tensor norm2_;
  const CausalConv3d conv2_;
  std::optional<PointwiseConv3d> conv_shortcut_;
};

/// Self-attention of each frame, one head.
class WanAttentionBlock {
 public:
  WanAttentionBlock(const Weights &weights, int64_t dim);
  /// x: [T, H, W, dim].
  at::Tensor operator()(const at::Tensor &x) const;

 private:
  const at::Tensor norm_;
  const PointwiseConv3d to_qkv_, proj_;
};

/// A residual block, attention, and another residual block. In and out as WanResidualBlock.
class WanMidBlock {
 public:
  WanMidBlock(const Weights &weights, int64_t dim);
  ConvResult operator()(ConvResult x, StreamState &state, const Epilogue &next) const;
  const at::Tensor &norm1() const { return first_.norm1(); }

 private:
  const WanResidualBlock first_;
  const WanAttentionBlock attention_;
  const WanResidualBlock second_;
};

/// Doubles the frames, where the stage does that, and then height and width (WanResample, upsample2d and
/// upsample3d).
class WanUpsample {
 public:
  WanUpsample(const Weights &weights, int64_t in, int64_t out, bool temporal);
  bool temporal() const { return time_conv_.has_value(); }
  /// x in parts of which no more than kFramesAtOnce frames come out of double_frames().
  Frames parts(const at::Tensor &x) const { return x.split(time_conv_ ? kFramesAtOnce / 2 : kFramesAtOnce); }
  /// x: [T, H, W, in]. Returns [T or 2 T, H, W, in].
  at::Tensor double_frames(const at::Tensor &x, StreamState &state) const;
  /// x: [T, H, W, in]. Returns [T, 2 H, 2 W, out].
  ConvResult double_size(const at::Tensor &x, const Epilogue &next) const;

 private:
  std::optional<CausalConv3d> time_conv_;
  const ConvWeight conv_;
};

/// Halves height and width and then, where the stage does that, the frames (WanResample, downsample2d and
/// downsample3d).
class WanDownsample {
 public:
  WanDownsample(const Weights &weights, int64_t dim, bool temporal);
  bool temporal() const { return time_conv_.has_value(); }
  /// x: [T, H, W, dim], where frames are halved the stream's first frame or two of those behind it. residual:
  /// is added, of the output's size, which may be put in its place; or undefined. Returns [T or T / 2, H / 2,
  /// W / 2, dim].
  at::Tensor operator()(const at::Tensor &x, const at::Tensor &residual, StreamState &state) const;

 private:
  const ConvWeight conv_;
  std::optional<HalvingConv3d> time_conv_;
};

/// The shortcut around a stage of a residual VAE's decoder: every channel's value for as many of the pixels
/// that a pixel becomes as makes `out` channels of them (DupUp3D). x: [T, H, W, C]. Returns [T, 2 H, 2 W,
/// out], or twice as many frames, of which a stream's first chunk has only the last.
at::Tensor duplicate_up(const at::Tensor &x, int64_t out, bool temporal, bool first_chunk);

/// The shortcut around a stage of a residual VAE's encoder: the mean of neighbouring pixels of a channel, or
/// of neighbouring channels of them (AvgDown3D). x: [T, H, W, C]. Returns [T / frames, H / size, W / size,
/// out]; a frame that is missing in front is zero.
at::Tensor average_down(const at::Tensor &x, int64_t out, int64_t frames, int64_t size);

}  // namespace wan
