// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Guidance in two places.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "pipeline/model_inputs.h"
#include "run_context.h"
#include "wan/engine.h"

namespace wan {

/// Somebody with the same experts, who computes the predictions of the negative prompt while a Denoiser
/// computes those of the prompt. For one clip at a time. All may throw wan::Error.
class NegativeDenoiser {
 public:
  virtual ~NegativeDenoiser() = default;

  /// Returns when the experts are loaded.
  virtual void wait_until_loaded(const RunContext &context) = 0;
  /// Who that is, and where the experts are, for the user.
  virtual std::string description() const = 0;
  /// timesteps: of all steps.
  virtual void begin_clip(const WanGenerateOptions &options, const ModelInputs &inputs,
                          const std::vector<double> &timesteps, const RunContext &context) = 0;
  /// latents: as Denoiser takes them.
  virtual void begin_step(size_t step, const at::Tensor &latents, const RunContext &context) = 0;
  /// The step's velocity, on the CPU.
  virtual at::Tensor finish_step(const RunContext &context) = 0;
  /// Of the clip's forwards so far, those that were shortened by a cache.
  virtual int32_t cached() const = 0;
  /// Also where a step has begun and nobody waits for its velocity any more.
  virtual void end_clip() = 0;
};

}  // namespace wan
