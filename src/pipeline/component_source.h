// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the weights of a model's components come from.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/lora.h"
#include "checkpoint/weights.h"
#include "run_context.h"

namespace wan {

/// A checkpoint, or random numbers in a benchmark.
class ComponentSource {
 public:
  virtual ~ComponentSource() = default;
  /// component: one of CheckpointConfig::files. device: that the weights are to be on.
  virtual std::unique_ptr<WeightSource> open(const std::string &component, at::Device device) = 0;
  /// Called when a component has taken all it needs; throws where that was not all there is.
  virtual void close(const std::string &component, const WeightSource &source) = 0;
};

/// The components of a checkpoint directory, with LoRAs merged into the experts. `context` gets warnings of
/// what is left out of these, now. `progress` hears the bytes read and the bytes in all; it may throw.
std::unique_ptr<ComponentSource> open_checkpoint(const CheckpointConfig &config, std::vector<Lora> loras,
                                                 const RunContext &context,
                                                 std::function<void(uint64_t, uint64_t)> progress);

}  // namespace wan
