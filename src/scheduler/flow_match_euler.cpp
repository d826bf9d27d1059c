#include <ATen/ATen.h>

#include "scheduler/scheduler.h"

namespace wan {

namespace {

double shifted(double sigma, double shift) {
  return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

}  // namespace

FlowMatchEulerDiscreteScheduler::FlowMatchEulerDiscreteScheduler(int steps, double shift,
                                                                 int64_t num_train_timesteps) {
  const double train_steps = static_cast<double>(num_train_timesteps);
  // Diffusers shifts twice: first the table that gives the smallest sigma, then the sigmas between that
  // and 1.
  const double least = static_cast<float>(shifted(1.0 / train_steps, shift));
  for (int i = 0; i < steps; ++i) {
    const double linear = steps == 1 ? 1.0 : 1.0 + (least - 1.0) * i / (steps - 1);
    const auto sigma = static_cast<float>(shifted(linear, shift));
    sigmas_.push_back(sigma);
    timesteps_.push_back(sigma * static_cast<float>(num_train_timesteps));
  }
  sigmas_.push_back(0.0f);
}

at::Tensor FlowMatchEulerDiscreteScheduler::step(const at::Tensor &model_output, const at::Tensor &sample) {
  const float change = sigmas_[step_index_ + 1] - sigmas_[step_index_];
  ++step_index_;
  return (sample.to(at::kFloat) + scaled(model_output, change)).to(model_output.scalar_type());
}

}  // namespace wan
