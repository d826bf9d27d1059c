#include "scheduler/scheduler.h"

#include <ATen/ATen.h>

namespace wan {

at::Tensor Scheduler::scaled(const at::Tensor &model_output, float factor) {
  return at::scalar_tensor(factor, at::kFloat) * model_output;
}

std::unique_ptr<Scheduler> make_scheduler(const SchedulerConfig &config, WanScheduler scheduler, int steps,
                                          double flow_shift) {
  if (scheduler == WAN_SCHEDULER_AUTO) scheduler = config.scheduler;
  if (scheduler == WAN_SCHEDULER_EULER)
    return std::make_unique<FlowMatchEulerDiscreteScheduler>(steps, flow_shift, config.num_train_timesteps);
  return std::make_unique<UniPCMultistepScheduler>(steps, flow_shift, config.num_train_timesteps);
}

}  // namespace wan
