// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>

#include <cmath>

#include "scheduler/scheduler.h"

namespace wan {

namespace {

constexpr int kSolverOrder = 2;

float alpha(float sigma) {
  return 1.0f - sigma;
}
/// Half the log signal-to-noise ratio; infinite at sigma 0.
float lambda(float sigma) {
  return std::log(alpha(sigma)) - std::log(sigma);
}

/// The part of a step that both predictor and corrector share: from `sample` at `sigma_s` to `sigma_t`.
struct Step {
  Step(float sigma_s, float sigma_t)
      : h(lambda(sigma_t) - lambda(sigma_s)),
        phi_1(std::expm1(-h)),
        ratio(sigma_t / sigma_s),
        scale(alpha(sigma_t) * phi_1) {}

  at::Tensor base(const at::Tensor &sample, const at::Tensor &x0) const {
    return sample * ratio - x0 * scale;
  }

  float h, phi_1;
  float ratio;  // sigma_t / sigma_s
  float scale;  // alpha_t * phi_1(-h) = alpha_t * B(h)
};

}  // namespace

UniPCMultistepScheduler::UniPCMultistepScheduler(std::span<const double> sigmas, double flow_shift,
                                                 int64_t num_train_timesteps) {
  for (const double linear : sigmas) {
    double sigma = shifted(linear, flow_shift);
    if (sigmas_.empty() && std::abs(sigma - 1.0) < 1e-6) sigma -= 1e-6;  // lambda(1) would be infinite
    timesteps_.push_back(std::trunc(sigma * static_cast<double>(num_train_timesteps)));
    sigmas_.push_back(static_cast<float>(sigma));
  }
  sigmas_.push_back(0.0f);
}

std::vector<double> UniPCMultistepScheduler::default_sigmas(int steps, int64_t num_train_timesteps) {
  std::vector<double> sigmas;
  for (int i = 0; i < steps; ++i)
    sigmas.push_back(1.0 - i * (1.0 - 1.0 / static_cast<double>(num_train_timesteps)) / steps);
  return sigmas;
}

float UniPCMultistepScheduler::solver_time(float sigma) const {
  return -lambda(sigma);
}

/// Uses the new prediction to improve the sample that the last prediction led to (UniC).
at::Tensor UniPCMultistepScheduler::correct(const at::Tensor &x0) const {
  const Step step(sigmas_[step_index_ - 1], sigmas_[step_index_]);
  const at::Tensor &m0 = x0_.back();
  const at::Tensor base = step.base(last_sample_, m0);
  if (order_ == 1) return base - (x0 - m0) * 0.5 * step.scale;
  const float r = (lambda(sigmas_[step_index_ - 2]) - lambda(sigmas_[step_index_ - 1])) / step.h;
  // rho solves [[1, 1], [r, 1]] rho = [b1, b2].
  const float k = -step.h;
  const float phi_2 = step.phi_1 / k - 1.0f, phi_3 = phi_2 / k - 0.5f;
  const float b1 = phi_2 / step.phi_1, b2 = phi_3 * 2.0f / step.phi_1;
  const float rho_1 = (b1 - b2) / (1.0f - r), rho_2 = b1 - rho_1;
  const at::Tensor d1 = (x0_.front() - m0) / r;
  return base - (d1 * rho_1 + (x0 - m0) * rho_2) * step.scale;
}

/// From the sample at this step's sigma to the next one (UniP).
at::Tensor UniPCMultistepScheduler::predict(const at::Tensor &sample) const {
  if (sigmas_[step_index_ + 1] == 0.0f) return x0_.back();  // the last step, whose h is infinite
  const Step step(sigmas_[step_index_], sigmas_[step_index_ + 1]);
  const at::Tensor base = step.base(sample, x0_.back());
  if (order_ == 1) return base;
  const float r = (lambda(sigmas_[step_index_ - 1]) - lambda(sigmas_[step_index_])) / step.h;
  const at::Tensor d1 = (x0_.front() - x0_.back()) / r;
  return base - d1 * 0.5 * step.scale;
}

at::Tensor UniPCMultistepScheduler::step(const at::Tensor &model_output, const at::Tensor &sample) {
  const at::Tensor x0 = sample.to(at::kFloat) - scaled(model_output, sigmas_[step_index_]);
  const at::Tensor corrected = step_index_ > 0 ? correct(x0) : sample.to(at::kFloat);
  if (x0_.size() == kSolverOrder) x0_.erase(x0_.begin());
  x0_.push_back(x0);
  const int steps_left = static_cast<int>(timesteps_.size() - step_index_);
  order_ = std::min({kSolverOrder, steps_left, static_cast<int>(step_index_) + 1});
  last_sample_ = corrected;
  const at::Tensor next = predict(corrected);
  ++step_index_;
  return next;
}

}  // namespace wan
