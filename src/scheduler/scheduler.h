// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Schedulers: the noise levels of a run and the step between two of them, as in diffusers.schedulers.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

#include "checkpoint/config.h"

namespace wan {

/// One denoising run: made anew for every clip, since a multistep solver remembers its last steps.
class Scheduler {
 public:
  virtual ~Scheduler() = default;

  /// Timestep of each step, in [0, num_train_timesteps]; what the model is given.
  const std::vector<double> &timesteps() const { return timesteps_; }
  /// Noise level before each step and, last, after the last one (0).
  const std::vector<float> &sigmas() const { return sigmas_; }

  /// What the solver divides by differences of, at a noise level above 0; it must fall from step to step.
  virtual float solver_time(float sigma) const { return sigma; }

  /// Takes the next step: from the model's output (predicted velocity) and the sample it was computed from.
  virtual at::Tensor step(const at::Tensor &model_output, const at::Tensor &sample) = 0;

 protected:
  /// Noise level `sigma`, shifted towards high noise.
  static double shifted(double sigma, double shift);
  /// factor * model_output in the model's dtype. With a tensor for a factor, as in Diffusers: LibTorch rounds
  /// bfloat16 products with a number in another place.
  static at::Tensor scaled(const at::Tensor &model_output, float factor);

  std::vector<double> timesteps_;
  std::vector<float> sigmas_;
  size_t step_index_ = 0;
};

/// UniPC (Zhao et al. 2023, https://arxiv.org/abs/2302.04867), order 2, B2(h), predicting x0, on
/// flow-matching sigmas: diffusers UniPCMultistepScheduler as Wan configures it (from Diffusers 0.37 on).
class UniPCMultistepScheduler : public Scheduler {
 public:
  /// sigmas: before the shift, a step each.
  UniPCMultistepScheduler(std::span<const double> sigmas, double flow_shift, int64_t num_train_timesteps);
  at::Tensor step(const at::Tensor &model_output, const at::Tensor &sample) override;
  float solver_time(float sigma) const override;
  /// The noise levels before the shift that stand for a number of steps.
  static std::vector<double> default_sigmas(int steps, int64_t num_train_timesteps);

 private:
  at::Tensor correct(const at::Tensor &x0) const;
  at::Tensor predict(const at::Tensor &sample) const;

  std::vector<at::Tensor> x0_;  // predictions of the last two steps, the newest last
  at::Tensor last_sample_;
  int order_ = 1;  // of the last prediction
};

/// Euler steps along the flow: diffusers FlowMatchEulerDiscreteScheduler with a static shift.
class FlowMatchEulerDiscreteScheduler : public Scheduler {
 public:
  /// sigmas: before the shift, a step each.
  FlowMatchEulerDiscreteScheduler(std::span<const double> sigmas, double shift, int64_t num_train_timesteps);
  at::Tensor step(const at::Tensor &model_output, const at::Tensor &sample) override;
  /// The noise levels before the shift that stand for a number of steps.
  static std::vector<double> default_sigmas(int steps, double shift, int64_t num_train_timesteps);
};

/// The options' scheduler (AUTO: the checkpoint's) for their sigmas or steps. Throws wan::Error (WAN_INVALID)
/// where those cannot be: where noise levels that differ would be the same in float32, after the shift.
std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig &config, const WanGenerateOptions &options);

}  // namespace wan
