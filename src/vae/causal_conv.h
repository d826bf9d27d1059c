// Convolutions of the Wan VAE, causal in time:
// diffusers.models.autoencoders.autoencoder_kl_wan.WanCausalConv3d.
#pragma once

#include <ATen/core/Tensor.h>

#include <unordered_map>

#include "checkpoint/weights.h"

namespace wan {

/// The last two input frames of one causal convolution, [B, C, 2, H, W]; undefined before the first chunk,
/// which stands for zeros.
using ConvCache = at::Tensor;

class CausalConv3d;

/// What a stream of latent frames carries from chunk to chunk.
class StreamState {
 public:
  ConvCache &cache(const CausalConv3d *conv) { return caches_[conv]; }
  bool first_chunk() const { return chunks_ == 0; }
  void end_chunk() { ++chunks_; }
  /// Memory that the caches hold.
  int64_t bytes() const;

 private:
  std::unordered_map<const CausalConv3d *, ConvCache> caches_;
  int64_t chunks_ = 0;
};

/// Padded so that space keeps its size; in time it sees this frame and the ones before.
class CausalConv3d {
 public:
  CausalConv3d(const Weights &weights, int64_t in, int64_t out, int64_t kernel_time, int64_t kernel_space);

  /// x: [B, in, T, H, W], the frames that follow those of the last call with the same state.
  at::Tensor operator()(const at::Tensor &x, StreamState &state) const;
  /// Bytes of its cache for each pixel of its input, in float32.
  static int64_t cache_bytes(int64_t in) { return 2 * in * static_cast<int64_t>(sizeof(float)); }

 private:
  const at::Tensor weight_, bias_;
  const int64_t padding_;
};

/// 1x1x1: no time, no state.
class PointwiseConv3d {
 public:
  PointwiseConv3d(const Weights &weights, int64_t in, int64_t out);
  at::Tensor operator()(const at::Tensor &x) const;

 private:
  const at::Tensor weight_, bias_;
};

/// Frame by frame: x is [B, in, T, H, W].
class Conv2dPerFrame {
 public:
  Conv2dPerFrame(const Weights &weights, int64_t in, int64_t out, int64_t kernel);
  at::Tensor operator()(const at::Tensor &x) const;

 private:
  const at::Tensor weight_, bias_;
};

}  // namespace wan
