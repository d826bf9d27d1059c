// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/denoiser.h"

#include <ATen/ATen.h>

namespace wan {

Denoiser::Denoiser(const Components &components, const WanGenerateOptions &options, const ClipPlan &plan,
                   const ModelInputs &inputs, const std::vector<double> &timesteps)
    : components_(components),
      options_(options),
      inputs_(inputs),
      timesteps_(timesteps),
      boundary_(components.config().boundary_ratio.value_or(0) *
                static_cast<double>(components.config().scheduler.num_train_timesteps)),
      rotary_(components.transformer().rotary(plan.frames, plan.height, plan.width)) {}

bool Denoiser::is_high_noise(size_t step) const {
  return !components_.transformer_2() || timesteps_[step] >= boundary_;
}

const WanTransformer3DModel &Denoiser::expert_of(size_t step) const {
  return is_high_noise(step) ? components_.transformer() : *components_.transformer_2();
}

double Denoiser::scale_of(size_t step) const {
  return is_high_noise(step) ? options_.guidance_scale : options_.guidance_scale_2;
}

void Denoiser::change_expert(const WanTransformer3DModel &expert, bool guided) {
  expert_ = &expert;
  prompt_.reset();  // both, so that the new ones find their memory
  negative_.reset();
  prompt_.emplace(expert, inputs_.text.prompt, inputs_.image, options_);
  if (guided) negative_.emplace(expert, inputs_.text.negative, inputs_.image, options_);
}

at::Tensor Denoiser::predict(ExpertSession &session, size_t step, const at::Tensor &latents,
                             const WanTransformer3DModel &next, const RunContext &context) {
  const auto times = inputs_.times(timesteps_[step], rotary_.cos.size(0), latents.size(2));
  const at::Tensor velocity = session(inputs_.of(latents), times, rotary_, next, context);
  cached_ += session.skipped();
  return velocity;
}

at::Tensor Denoiser::operator()(size_t step, const at::Tensor &latents, const RunContext &context) {
  const WanTransformer3DModel &expert = expert_of(step);
  // With a scale of 1 the unguided prediction would cancel out.
  const double scale = scale_of(step);
  const bool guided = is_guided(options_) && scale != 1;
  if (&expert != expert_) change_expert(expert, guided);
  // After the last step comes the first one of the next clip.
  const WanTransformer3DModel &next = expert_of((step + 1) % timesteps_.size());
  const at::Tensor velocity = predict(*prompt_, step, latents, guided ? expert : next, context);
  if (!guided) return velocity;
  negative_->share_pictures(*prompt_);
  const at::Tensor unconditional = predict(*negative_, step, latents, next, context);
  return unconditional + (velocity - unconditional) * scale;
}

}  // namespace wan
