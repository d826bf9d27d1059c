// SPDX-License-Identifier: LGPL-2.1-or-later
#include "scheduler/scheduler.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <string>

#include "error.h"

namespace wan {

namespace {

/// The options' sigmas, empty where they leave them to the scheduler.
std::vector<double> explicit_sigmas(const SchedulerConfig &config, const WanGenerateOptions &options) {
  if (!options.sigmas) return {};
  const std::vector<double> sigmas(options.sigmas, options.sigmas + options.num_sigmas);
  if (sigmas.empty() || sigmas.size() > static_cast<size_t>(config.num_train_timesteps))
    throw invalid("sigmas has " + std::to_string(sigmas.size()) + " values, and may have 1 to " +
                  std::to_string(config.num_train_timesteps));
  for (const double sigma : sigmas)
    if (!(sigma > 0 && sigma <= 1))
      throw invalid("sigmas: " + number_text(sigma) + " is not above 0 and up to 1");
  return sigmas;
}

/// The first step that the one before cannot be told from, or none: `steps`. As the steps divide by their
/// differences, in float32 and after the shift, where neighbours may meet each other, 0 or 1.
size_t first_that_does_not_fall(const Scheduler &scheduler, size_t steps) {
  float before = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < steps; ++i) {
    const float sigma = scheduler.sigmas()[i], time = scheduler.solver_time(sigma);
    if (!(sigma > 0 && std::isfinite(time) && time < before)) return i;
    before = time;
  }
  return steps;
}

void require_falling(const std::vector<double> &sigmas, const Scheduler &scheduler) {
  const size_t i = first_that_does_not_fall(scheduler, sigmas.size());
  if (i == sigmas.size()) return;
  if (i == 0 || !(scheduler.sigmas()[i] > 0))
    throw invalid("sigmas: " + number_text(sigmas[i]) + " with this flow-shift is too near to 0 or 1");
  throw invalid("sigmas must fall from step to step, and " + number_text(sigmas[i]) + " comes after " +
                number_text(sigmas[i - 1]));
}

void require_falling(const WanGenerateOptions &options, const Scheduler &scheduler) {
  const auto steps = static_cast<size_t>(options.steps);
  if (first_that_does_not_fall(scheduler, steps) < steps)
    throw invalid("flow-shift=" + number_text(options.flow_shift) +
                  " leaves too few different noise levels for steps=" + std::to_string(options.steps) +
                  ": choose a flow-shift nearer to 1 or fewer steps");
}

}  // namespace

double Scheduler::shifted(double sigma, double shift) {
  return shift * sigma / (1.0 + (shift - 1.0) * sigma);
}

at::Tensor Scheduler::scaled(const at::Tensor &model_output, float factor) {
  return at::scalar_tensor(factor, at::kFloat) * model_output;
}

std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig &config, const WanGenerateOptions &options) {
  const int64_t train_steps = config.num_train_timesteps;
  const double shift = options.flow_shift;
  const WanScheduler kind = options.scheduler == WAN_SCHEDULER_AUTO ? config.scheduler : options.scheduler;
  const bool euler = kind == WAN_SCHEDULER_EULER;
  std::vector<double> sigmas = explicit_sigmas(config, options);
  const bool given = !sigmas.empty();
  if (!given)
    sigmas = euler ? FlowMatchEulerDiscreteScheduler::default_sigmas(options.steps, shift, train_steps)
                   : UniPCMultistepScheduler::default_sigmas(options.steps, train_steps);
  std::unique_ptr<Scheduler> scheduler;
  if (euler)
    scheduler = std::make_unique<FlowMatchEulerDiscreteScheduler>(sigmas, shift, train_steps);
  else
    scheduler = std::make_unique<UniPCMultistepScheduler>(sigmas, shift, train_steps);
  given ? require_falling(sigmas, *scheduler) : require_falling(options, *scheduler);
  return scheduler;
}

}  // namespace wan
