// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/colours.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

constexpr double kMostGain = 2, kLeastDeviation = 1e-6;

/// [3] as what a frame is computed with.
at::Tensor per_channel(const at::Tensor &values) {
  return values.to(at::kFloat).view({1, 3, 1, 1, 1});
}

}  // namespace

void Colours::add(const at::Tensor &frames) {
  const at::Tensor pixels = frames[0].flatten(1).to(at::kDouble);
  const at::Tensor sum = pixels.sum(1), squares = pixels.square().sum(1);
  sum_ = sum_.defined() ? sum_ + sum : sum;
  squares_ = squares_.defined() ? squares_ + squares : squares;
  count_ += pixels.size(1);
}

at::Tensor Colours::statistics() const {
  const at::Tensor mean = sum_ / count_;
  return at::stack({mean, (squares_ / count_ - mean.square()).clamp_min(0).sqrt()});
}

at::Tensor with_colours(const at::Tensor &frame, const at::Tensor &reference, double strength) {
  Colours colours;
  colours.add(frame);
  const at::Tensor own = colours.statistics();
  const at::Tensor wanted = own + (reference - own) * strength;
  const at::Tensor gain = (wanted[1] / own[1].clamp_min(kLeastDeviation)).clamp(1 / kMostGain, kMostGain);
  return ((frame - per_channel(own[0])) * per_channel(gain) + per_channel(wanted[0])).clamp_(-1, 1);
}

}  // namespace wan
