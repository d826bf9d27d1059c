// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>

#include "scheduler/scheduler.h"

namespace wan {

FlowMatchEulerDiscreteScheduler::FlowMatchEulerDiscreteScheduler(std::span<const double> sigmas, double shift,
                                                                 int64_t num_train_timesteps) {
  for (const double linear : sigmas) {
    const auto sigma = static_cast<float>(shifted(linear, shift));
    sigmas_.push_back(sigma);
    timesteps_.push_back(sigma * static_cast<float>(num_train_timesteps));
  }
  sigmas_.push_back(0.0f);
}

// Diffusers shifts twice: first the table that gives the smallest sigma, then the sigmas between that and 1.
std::vector<double> FlowMatchEulerDiscreteScheduler::default_sigmas(int steps, double shift,
                                                                    int64_t num_train_timesteps) {
  const double least = static_cast<float>(shifted(1.0 / static_cast<double>(num_train_timesteps), shift));
  std::vector<double> sigmas;
  for (int i = 0; i < steps; ++i) sigmas.push_back(steps == 1 ? 1.0 : 1.0 + (least - 1.0) * i / (steps - 1));
  return sigmas;
}

at::Tensor FlowMatchEulerDiscreteScheduler::step(const at::Tensor &model_output, const at::Tensor &sample) {
  const float change = sigmas_[step_index_ + 1] - sigmas_[step_index_];
  ++step_index_;
  return (sample.to(at::kFloat) + scaled(model_output, change)).to(model_output.scalar_type());
}

}  // namespace wan
