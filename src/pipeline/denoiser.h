// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One velocity at a time: which expert, and guidance.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "pipeline/clip_plan.h"
#include "pipeline/expert_session.h"
#include "pipeline/experts.h"
#include "pipeline/model_inputs.h"
#include "pipeline/negative_denoiser.h"
#include "pipeline/replicas.h"

namespace wan {

/// Of one clip. The only place that knows of classifier-free guidance.
class Denoiser {
 public:
  /// timesteps: of all steps. negative: who computes the predictions of the negative prompt, and has begun
  /// this clip; null: the ranks. All arguments must outlive it.
  Denoiser(const Experts &experts, const WanGenerateOptions &options, const ClipPlan &plan,
           const ModelInputs &inputs, const std::vector<double> &timesteps,
           NegativeDenoiser *negative = nullptr);

  /// latents: [1, z_dim, T, H, W] float32. Returns the velocity, of the same shape and on their device. Steps
  /// are taken in order.
  at::Tensor operator()(size_t step, const at::Tensor &latents, const RunContext &context);
  /// Forwards so far that were shortened by a cache.
  int32_t cached() const { return cached_ + (negative_ ? negative_->cached() : 0); }
  /// Of the last step.
  const RankSharing &sharing() const { return sharing_; }

 private:
  /// What one prompt makes of the latents, computed by the ranks from `first` on, with a session for each.
  struct Prediction {
    int64_t first;
    std::deque<ExpertSession> sessions;
    at::Tensor velocity;  // of the last step, on the device of the first of them

    /// Null where the rank takes no part.
    ExpertSession *session_of(int64_t rank);
  };

  bool is_high_noise(size_t step) const;
  const Replicas &expert_of(size_t step) const;
  double scale_of(size_t step) const;
  /// The ranks may be others, too.
  void change_expert(const Replicas &expert, bool both_prompts);
  Prediction predict_from(const at::Tensor &text, int64_t first) const;
  /// What one rank has to do for a step. latents: with the model's other inputs, on its device.
  void predict(int64_t rank, size_t step, const at::Tensor &latents, const RunContext &context);

  const Experts &experts_;
  const WanGenerateOptions &options_;
  const ModelInputs &inputs_;
  const std::vector<double> &timesteps_;
  NegativeDenoiser *const negative_;
  const double boundary_;  // the last timestep of the expert for high noise
  const RotaryEmbedding tables_;
  std::vector<RotaryEmbedding> rotary_;  // the same for each rank of the expert
  RankSharing sharing_ = {1, 1};
  const Replicas *expert_ = nullptr;
  std::deque<Prediction> predictions_;  // of the prompt, and of the negative prompt where there is guidance
  int32_t cached_ = 0;
};

}  // namespace wan
