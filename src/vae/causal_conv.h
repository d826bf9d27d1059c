// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Convolutions of the Wan VAE, causal in time, and what a stream carries from one call to the next:
// diffusers.models.autoencoders.autoencoder_kl_wan.WanCausalConv3d.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>

#include "checkpoint/weights.h"
#include "ops/conv.h"

namespace wan {

/// What a stream of frames carries from chunk to chunk.
class StreamState {
 public:
  /// The last input frames of a convolution, two at most; none stand for zeros.
  Frames &history(const void *conv) { return history_[conv]; }

  /// What the encoder knows of a stage that is given the same frame again and again.
  struct Still {
    int64_t frames = 0;  // that it was given so far
    at::Tensor out;      // what it makes of a chunk of them from now on; undefined: that changes still
  };
  Still &still(size_t stage) { return still_[stage]; }

  bool first_chunk() const { return chunks_ == 0; }
  void end_chunk() { ++chunks_; }
  /// Memory that the frames of history hold.
  int64_t bytes() const;

 private:
  std::unordered_map<const void *, Frames> history_;
  std::unordered_map<size_t, Still> still_;
  int64_t chunks_ = 0;
};

/// Padded so that space keeps its size; in time it sees this frame and the two before.
class CausalConv3d {
 public:
  /// kernel_space is 3, or 1 for a convolution of time alone.
  CausalConv3d(const Weights &weights, int64_t in, int64_t out, int64_t kernel_space);

  /// x: [T, H, W, in], the frames that follow those of the last call with the same state. Their memory lives
  /// on as history, so T is 1 or 2.
  ConvResult operator()(const at::Tensor &x, StreamState &state, const Epilogue &epilogue) const;
  /// For a kernel of time alone and out = 2 in: [2 T, H, W, in].
  at::Tensor double_frames(const at::Tensor &x, StreamState &state) const;

 private:
  const ConvWeight weight_;
};

/// Of time alone, and of every second frame: two frames and the one before them become one.
class HalvingConv3d {
 public:
  HalvingConv3d(const Weights &weights, int64_t channels);

  /// Takes the first frame, which is one of the stream's outputs as it is. frame: [1, H, W, C].
  void begin(const at::Tensor &frame, StreamState &state) const;
  /// x: [2, H, W, C], the frames that follow. Returns [1, H, W, C].
  at::Tensor operator()(const at::Tensor &x, StreamState &state, const Epilogue &epilogue) const;

 private:
  const ConvWeight weight_;
};

/// 1x1x1: no time, no state, and so a matrix. x: [..., in].
class PointwiseConv3d {
 public:
  /// dims: of the stored weight beside its channels, 3 or 2 (diffusers has both).
  PointwiseConv3d(const Weights &weights, int64_t in, int64_t out, int64_t dims = 3);
  at::Tensor operator()(const at::Tensor &x) const;
  at::Device device() const { return weight_.device(); }

 private:
  const at::Tensor weight_, bias_;
};

}  // namespace wan
