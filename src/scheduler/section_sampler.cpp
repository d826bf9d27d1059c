// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/section_sampler.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "scheduler/scheduler.h"

namespace wan {

namespace {

constexpr int64_t kLevels = 1000;

std::vector<float> to_vector(const at::Tensor &values) {
  const float *const first = values.const_data_ptr<float>();
  return {first, first + values.numel()};
}

std::vector<double> renoise_timesteps(const CausalConfig &config) {
  const RenoiseTable table(config.flow_shift);
  std::vector<double> timesteps;
  for (const int64_t level : config.denoising_step_list)
    timesteps.push_back(config.warp_denoising_step ? table.timestep(level) : static_cast<double>(level));
  return timesteps;
}

class RenoiseSampler : public SectionSampler {
 public:
  explicit RenoiseSampler(const CausalConfig &config) : table_(config.flow_shift) {
    timesteps_ = renoise_timesteps(config);
  }

  at::Tensor step(const at::Tensor &velocity, const at::Tensor &sample, const FreshNoise &noise) override {
    const at::Tensor x0 = finished(sample, velocity, table_.sigma(timesteps_[step_]));
    if (++step_ == timesteps_.size()) return x0;
    return renoised(x0, noise(), table_.sigma(timesteps_[step_]));
  }

 protected:
  const RenoiseTable table_;
};

/// Of two experts: the one for high noise predicts the state at the boundary between them.
class TwoExpertSampler : public RenoiseSampler {
 public:
  explicit TwoExpertSampler(const CausalConfig &config)
      : RenoiseSampler(config), boundary_(*config.boundary_ratio * static_cast<double>(kLevels)) {}

  at::Tensor step(const at::Tensor &velocity, const at::Tensor &sample, const FreshNoise &noise) override {
    if (timesteps_[step_] < boundary_) return RenoiseSampler::step(velocity, sample, noise);
    const double sigma = table_.sigma(timesteps_[step_]), at_boundary = table_.sigma(boundary_);
    const at::Tensor state =
        (sample.to(at::kDouble) - velocity.to(at::kDouble) * (sigma - at_boundary)).to(at::kFloat);
    const at::Tensor fresh = noise();  // drawn also where it is not used, so that draws stay in step
    if (++step_ == timesteps_.size() || timesteps_[step_] < boundary_) return state;
    return back_to(state, fresh, static_cast<float>(at_boundary), table_.sigma(timesteps_[step_]));
  }

 private:
  static at::Tensor back_to(const at::Tensor &state, const at::Tensor &noise, float boundary, float sigma) {
    const float alpha = (1.0f - sigma) / (1.0f - boundary);
    const float known = alpha * boundary;
    return state * alpha + noise * std::sqrt(sigma * sigma - known * known);
  }

  const double boundary_;
};

/// torch.linspace(0.999, 0, steps + 1) without its last value; 0.999 was rounded to float32 before.
std::vector<double> original_sigmas(int64_t steps) {
  const double first = 0.999f, step = -first / static_cast<double>(steps);
  std::vector<double> sigmas;
  for (int64_t i = 0; i < steps; ++i)
    sigmas.push_back(2 * i < steps + 1 ? first + step * static_cast<double>(i)
                                       : -step * static_cast<double>(steps - i));
  return sigmas;
}

/// The original Wan's noise levels; of each section anew.
class UniPCSampler : public SectionSampler {
 public:
  explicit UniPCSampler(const CausalConfig &config)
      : solver_(original_sigmas(config.steps()), config.flow_shift, kLevels) {
    timesteps_ = solver_.timesteps();
  }

  at::Tensor step(const at::Tensor &velocity, const at::Tensor &sample,
                  const FreshNoise & /*noise*/) override {
    return solver_.step(velocity, sample);
  }

 private:
  UniPCMultistepScheduler solver_;
};

}  // namespace

RenoiseTable::RenoiseTable(double flow_shift) {
  const at::Tensor linear = at::linspace(1, 0, kLevels + 1, at::kFloat).narrow(0, 0, kLevels);
  const at::Tensor sigmas = linear * flow_shift / (linear * (flow_shift - 1) + 1);
  sigmas_ = to_vector(sigmas);
  timesteps_ = to_vector(sigmas * static_cast<double>(kLevels));
}

double RenoiseTable::timestep(int64_t level) const {
  return level == 0 ? 0.0 : timesteps_[static_cast<size_t>(kLevels - level)];
}

float RenoiseTable::sigma(double timestep) const {
  const auto distance = [timestep](float entry) { return std::abs(static_cast<double>(entry) - timestep); };
  const auto nearest = std::ranges::min_element(timesteps_, {}, distance);
  return sigmas_[static_cast<size_t>(nearest - timesteps_.begin())];
}

at::Tensor finished(const at::Tensor &sample, const at::Tensor &velocity, float sigma) {
  return (sample.to(at::kDouble) - velocity.to(at::kDouble) * static_cast<double>(sigma)).to(at::kFloat);
}

at::Tensor renoised(const at::Tensor &finished, const at::Tensor &noise, float sigma) {
  return finished * (1.0f - sigma) + noise * sigma;
}

std::unique_ptr<SectionSampler> make_section_sampler(const CausalConfig &config) {
  if (config.sampler == SectionSolver::kUniPC) return std::make_unique<UniPCSampler>(config);
  if (config.boundary_ratio) return std::make_unique<TwoExpertSampler>(config);
  return std::make_unique<RenoiseSampler>(config);
}

}  // namespace wan
