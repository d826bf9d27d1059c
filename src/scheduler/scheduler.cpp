#include "scheduler/scheduler.h"

#include <ATen/ATen.h>

#include <iomanip>
#include <sstream>
#include <string>

#include "error.h"

namespace wan {

namespace {

std::string number(double value) {
  std::ostringstream text;
  text << std::setprecision(10) << value;
  return text.str();
}

/// The options' sigmas, empty where they leave them to the scheduler.
std::vector<double> explicit_sigmas(const SchedulerConfig &config, const WanGenerateOptions &options) {
  if (!options.sigmas) return {};
  const std::vector<double> sigmas(options.sigmas, options.sigmas + options.num_sigmas);
  if (sigmas.empty() || sigmas.size() > static_cast<size_t>(config.num_train_timesteps))
    throw invalid("sigmas has " + std::to_string(sigmas.size()) + " values, and may have 1 to " +
                  std::to_string(config.num_train_timesteps));
  for (const double sigma : sigmas)
    if (!(sigma > 0 && sigma <= 1)) throw invalid("sigmas: " + number(sigma) + " is not above 0 and up to 1");
  return sigmas;
}

/// As the steps divide by their differences: in float32 and after the shift, where neighbours may meet.
void require_falling(const std::vector<double> &sigmas, const Scheduler &scheduler) {
  for (size_t i = 1; i < sigmas.size(); ++i)
    if (!(scheduler.sigmas()[i] < scheduler.sigmas()[i - 1]))
      throw invalid("sigmas must fall from step to step, and " + number(sigmas[i]) + " comes after " +
                    number(sigmas[i - 1]));
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
  if (given) require_falling(sigmas, *scheduler);
  return scheduler;
}

}  // namespace wan
