#include "vae/causal_conv.h"

#include <ATen/ATen.h>

namespace wan {

int64_t StreamState::bytes() const {
  int64_t sum = 0;
  for (const auto &[conv, cache] : caches_) sum += static_cast<int64_t>(cache.storage().nbytes());
  return sum;
}

CausalConv3d::CausalConv3d(const Weights &weights, int64_t in, int64_t out, int64_t kernel_time,
                           int64_t kernel_space)
    : weight_(weights("weight", {out, in, kernel_time, kernel_space, kernel_space})),
      bias_(weights("bias", {out})),
      padding_(kernel_space / 2) {}

at::Tensor CausalConv3d::operator()(const at::Tensor &x, StreamState &state) const {
  ConvCache &cache = state.cache(this);
  const int64_t history = weight_.size(2) - 1;
  if (!cache.defined()) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape[2] = history;
    cache = at::zeros(shape, x.options());
  }
  const at::Tensor frames = at::cat({cache, x}, 2);
  // A copy: a view would keep all of `frames` alive.
  cache = frames.narrow(2, frames.size(2) - history, history).clone();
  return at::conv3d(frames, weight_, bias_, /*stride=*/1, /*padding=*/{0, padding_, padding_});
}

PointwiseConv3d::PointwiseConv3d(const Weights &weights, int64_t in, int64_t out)
    : weight_(weights("weight", {out, in, 1, 1, 1})), bias_(weights("bias", {out})) {}

at::Tensor PointwiseConv3d::operator()(const at::Tensor &x) const {
  return at::conv3d(x, weight_, bias_);
}

Conv2dPerFrame::Conv2dPerFrame(const Weights &weights, int64_t in, int64_t out, int64_t kernel)
    : weight_(weights("weight", {out, in, kernel, kernel})), bias_(weights("bias", {out})) {}

at::Tensor Conv2dPerFrame::operator()(const at::Tensor &x) const {
  const at::Tensor frames = x.transpose(1, 2).flatten(0, 1);
  const at::Tensor out = at::conv2d(frames, weight_, bias_, /*stride=*/1, /*padding=*/weight_.size(2) / 2);
  return out.unflatten(0, {x.size(0), x.size(2)}).transpose(1, 2);
}

}  // namespace wan
