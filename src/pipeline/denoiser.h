// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One velocity at a time: which expert, and guidance.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "pipeline/clip_plan.h"
#include "pipeline/components.h"
#include "pipeline/expert_session.h"
#include "pipeline/model_inputs.h"

namespace wan {

/// Of one clip. The only place that knows of classifier-free guidance.
class Denoiser {
 public:
  /// timesteps: of all steps. All arguments must outlive it.
  Denoiser(const Components &components, const WanGenerateOptions &options, const ClipPlan &plan,
           const ModelInputs &inputs, const std::vector<double> &timesteps);

  /// latents: [1, z_dim, T, H, W] float32. Returns the velocity, of the same shape. Steps are taken in order.
  at::Tensor operator()(size_t step, const at::Tensor &latents, const RunContext &context);
  /// Forwards so far that were shortened by a cache.
  int32_t cached() const { return cached_; }

 private:
  bool is_high_noise(size_t step) const;
  const WanTransformer3DModel &expert_of(size_t step) const;
  double scale_of(size_t step) const;
  void change_expert(const WanTransformer3DModel &expert, bool guided);
  at::Tensor predict(ExpertSession &session, size_t step, const at::Tensor &latents,
                     const WanTransformer3DModel &next, const RunContext &context);

  const Components &components_;
  const WanGenerateOptions &options_;
  const ModelInputs &inputs_;
  const std::vector<double> &timesteps_;
  const double boundary_;  // the last timestep of the expert for high noise
  const RotaryEmbedding rotary_;
  const WanTransformer3DModel *expert_ = nullptr;
  std::optional<ExpertSession> prompt_, negative_;
  int32_t cached_ = 0;
};

}  // namespace wan
