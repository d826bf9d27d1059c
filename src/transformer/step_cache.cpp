// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/step_cache.h"

#include <ATen/ATen.h>

#include <utility>

namespace wan {

namespace {

double relative_change(const at::Tensor &now, const at::Tensor &before, const SequenceGroup &group) {
  const at::Tensor means = group.mean(at::stack({(now - before).abs().mean(), before.abs().mean()}));
  return (means[0] / means[1]).item<double>();
}

}  // namespace

bool StepCache::skips_rest(const at::Tensor &in, const at::Tensor &out, const SequenceGroup &group) {
  const at::Tensor residual = out - in;
  skipped_ = rest_residual_.defined() && relative_change(residual, first_residual_, group) <= threshold_;
  if (skipped_) return true;
  first_residual_ = residual;
  first_out_ = out;
  return false;
}

at::Tensor StepCache::finish(const at::Tensor &out) {
  if (skipped_) return out + rest_residual_;
  rest_residual_ = out - std::exchange(first_out_, {});
  return out;
}

}  // namespace wan
