// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/causal_conv.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

constexpr int64_t kKernelTime = 3;

using MakeWeight = ConvWeight (*)(const at::Tensor &, const at::Tensor &, at::ScalarType);

ConvWeight load(const Weights &weights, int64_t in, int64_t out, int64_t kernel_space,
                MakeWeight make = ConvWeight::causal) {
  const Weights wide = weights.as(at::kFloat);
  return make(wide("weight", {out, in, kKernelTime, kernel_space, kernel_space}), wide("bias", {out}),
              weights.dtype());
}

/// Puts x behind the history.
Frames &extend(Frames &history, const at::Tensor &x) {
  for (const at::Tensor &frame : x.unbind(0)) history.push_back(frame);
  return history;
}

void keep_last(Frames &frames, int64_t kept) {
  const auto count = static_cast<int64_t>(frames.size());
  frames.erase(frames.begin(), frames.begin() + std::max<int64_t>(0, count - kept));
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

ConvResult CausalConv3d::operator()(const at::Tensor &x, StreamState &state, const Epilogue &epilogue) const {
  Frames &frames = extend(state.history(this), x);
  ConvResult result = causal_conv3d(frames, x.size(0), weight_, epilogue);
  keep_last(frames, kKernelTime - 1);
  return result;
}

at::Tensor CausalConv3d::double_frames(const at::Tensor &x, StreamState &state) const {
  Frames &frames = extend(state.history(this), x);
  at::Tensor doubled = double_frames_conv(frames, x.size(0), weight_);
  keep_last(frames, kKernelTime - 1);
  return doubled;
}

HalvingConv3d::HalvingConv3d(const Weights &weights, int64_t channels)
    : weight_(load(weights, channels, channels, 1, ConvWeight::halve_frames)) {}

void HalvingConv3d::begin(const at::Tensor &frame, StreamState &state) const {
  state.history(this) = {frame[0]};
}

at::Tensor HalvingConv3d::operator()(const at::Tensor &x, StreamState &state,
                                     const Epilogue &epilogue) const {
  Frames &frames = extend(state.history(this), x);
  at::Tensor out = halve_frames_conv(frames, weight_, epilogue).out;
  keep_last(frames, 1);
  return out;
}

PointwiseConv3d::PointwiseConv3d(const Weights &weights, int64_t in, int64_t out, int64_t dims)
    : weight_(weights("weight", pointwise_shape(in, out, dims)).view({out, in})),
      bias_(weights("bias", {out})) {}

at::Tensor PointwiseConv3d::operator()(const at::Tensor &x) const {
  return at::linear(x, weight_, bias_);
}

}  // namespace wan
