// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Samplers of causal models: a few steps for each section of a video.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "checkpoint/causal.h"

namespace wan {

/// The noise levels of samplers that renoise: 1000 of them, shifted, in float32 as their authors compute
/// them.
class RenoiseTable {
 public:
  explicit RenoiseTable(double flow_shift);
  /// The timestep of a level, 1000 (pure noise) to 1, before the shift; 0 stands for 0.
  double timestep(int64_t level) const;
  /// The level of the entry whose timestep is nearest; not 0 at timestep 0, but the least.
  float sigma(double timestep) const;

 private:
  std::vector<float> sigmas_, timesteps_;
};

/// The finished sample that a velocity at a noise level points to, computed in float64. All: of one shape.
at::Tensor finished(const at::Tensor &sample, const at::Tensor &velocity, float sigma);
/// A finished sample with noise again.
at::Tensor renoised(const at::Tensor &finished, const at::Tensor &noise, float sigma);

/// Fresh noise of the sample's shape.
using FreshNoise = std::function<at::Tensor()>;

/// The steps of one section; made anew for each.
class SectionSampler {
 public:
  virtual ~SectionSampler() = default;
  /// Of each step, what the model is given.
  const std::vector<double> &timesteps() const { return timesteps_; }
  /// Takes the next step.
  virtual at::Tensor step(const at::Tensor &velocity, const at::Tensor &sample, const FreshNoise &noise) = 0;

 protected:
  std::vector<double> timesteps_;
  size_t step_ = 0;
};

/// The sampler of a family.
std::unique_ptr<SectionSampler> make_section_sampler(const CausalConfig &config);

}  // namespace wan
