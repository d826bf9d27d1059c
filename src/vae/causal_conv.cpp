// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/causal_conv.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

constexpr int64_t kKernelTime = 3;

ConvWeight load(const Weights &weights, int64_t in, int64_t out, int64_t kernel_space) {
  const Weights wide = weights.as(at::kFloat);
  return ConvWeight::causal(wide("weight", {out, in, kKernelTime, kernel_space, kernel_space}),
                            wide("bias", {out}), weights.dtype());
}

void forget_old(Frames &frames) {
  const auto count = static_cast<int64_t>(frames.size());
  frames.erase(frames.begin(), frames.begin() + std::max<int64_t>(0, count - (kKernelTime - 1)));
}

std::vector<int64_t> pointwise_shape(int64_t in, int64_t out, int64_t dims) {
  std::vector<int64_t> shape(static_cast<size_t>(2 + dims), 1);
  shape[0] = out;
  shape[1] = in;
  return shape;
}

}  // namespace

int64_t StreamState::bytes() const {
  int64_t sum = 0;
  for (const auto &[conv, frames] : history_)
    for (const at::Tensor &frame : frames) sum += static_cast<int64_t>(frame.nbytes());
  return sum;
}

CausalConv3d::CausalConv3d(const Weights &weights, int64_t in, int64_t out, int64_t kernel_space)
    : weight_(load(weights, in, out, kernel_space)) {}

Frames &CausalConv3d::extend(const at::Tensor &x, StreamState &state) const {
  Frames &frames = state.history(this);
  for (const at::Tensor &frame : x.unbind(0)) frames.push_back(frame);
  return frames;
}

ConvResult CausalConv3d::operator()(const at::Tensor &x, StreamState &state, const Epilogue &epilogue) const {
  Frames &frames = extend(x, state);
  ConvResult result = causal_conv3d(frames, x.size(0), weight_, epilogue);
  forget_old(frames);
  return result;
}

at::Tensor CausalConv3d::double_frames(const at::Tensor &x, StreamState &state) const {
  Frames &frames = extend(x, state);
  at::Tensor doubled = double_frames_conv(frames, x.size(0), weight_);
  forget_old(frames);
  return doubled;
}

PointwiseConv3d::PointwiseConv3d(const Weights &weights, int64_t in, int64_t out, int64_t dims)
    : weight_(weights("weight", pointwise_shape(in, out, dims)).view({out, in})),
      bias_(weights("bias", {out})) {}

at::Tensor PointwiseConv3d::operator()(const at::Tensor &x) const {
  return at::linear(x, weight_, bias_);
}

}  // namespace wan
