// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/denoiser.h"

#include <ATen/ATen.h>

#include <utility>

namespace wan {

Denoiser::Denoiser(const Experts &experts, const WanGenerateOptions &options, const ClipPlan &plan,
                   const ModelInputs &inputs, const std::vector<double> &timesteps,
                   NegativeDenoiser *negative)
    : experts_(experts),
      options_(options),
      inputs_(inputs),
      timesteps_(timesteps),
      negative_(negative),
      boundary_(experts.config().boundary_ratio.value_or(0) *
                static_cast<double>(experts.config().scheduler.num_train_timesteps)),
      tables_(experts.transformer().rotary(plan.frames, plan.height, plan.width)) {}

ExpertSession *Denoiser::Prediction::session_of(int64_t rank) {
  const bool takes_part = rank >= first && rank < first + std::ssize(sessions);
  return takes_part ? &sessions[static_cast<size_t>(rank - first)] : nullptr;
}

bool Denoiser::is_high_noise(size_t step) const {
  return experts_.all().size() == 1 || timesteps_[step] >= boundary_;
}

const Replicas &Denoiser::expert_of(size_t step) const {
  return is_high_noise(step) ? experts_.all().front() : experts_.all().back();
}

double Denoiser::scale_of(size_t step) const {
  return is_high_noise(step) ? options_.guidance_scale : options_.guidance_scale_2;
}

Denoiser::Prediction Denoiser::predict_from(const at::Tensor &text, int64_t first) const {
  Prediction prediction = {first, {}, {}};
  for (const SequenceGroup &member : expert_->threads().group(first, sharing_.ranks))
    prediction.sessions.emplace_back((*expert_)[first + member.rank()], text, inputs_.image, options_,
                                     member);
  return prediction;
}

void Denoiser::change_expert(const Replicas &expert, bool both_prompts) {
  expert_ = &expert;
  predictions_.clear();  // so that the new ones find their memory
  rotary_.clear();
  const std::vector<at::Tensor> cos = expert.spread(tables_.cos), sin = expert.spread(tables_.sin);
  for (size_t rank = 0; rank < cos.size(); ++rank) rotary_.push_back({cos[rank], sin[rank]});
  sharing_ = share_step(expert.threads().count(), both_prompts,
                        experts_.config().transformer.num_attention_heads, tables_.cos.size(0));
  predictions_.push_back(predict_from(inputs_.text.prompt, 0));
  if (both_prompts)
    predictions_.push_back(
        predict_from(inputs_.text.negative, sharing_.predictions == 2 ? sharing_.ranks : 0));
}

void Denoiser::predict(int64_t rank, size_t step, const at::Tensor &latents, const RunContext &context) {
  const RotaryEmbedding &rotary = rotary_[static_cast<size_t>(rank)];
  const WanTransformer3DModel &own = (*expert_)[rank];
  const auto times = inputs_.times(timesteps_[step], rotary.cos.size(0), latents.size(2));
  // After the last step comes the first one of the next clip.
  const WanTransformer3DModel &next = expert_of((step + 1) % timesteps_.size())[rank];
  std::vector<std::pair<Prediction *, ExpertSession *>> work;
  for (Prediction &prediction : predictions_)
    if (ExpertSession *session = prediction.session_of(rank)) work.emplace_back(&prediction, session);
  for (size_t i = 0; i < work.size(); ++i) {
    const auto [prediction, session] = work[i];
    if (i > 0) session->share_pictures(*work[0].second);
    const at::Tensor velocity = (*session)(latents, times, rotary, i + 1 < work.size() ? own : next, context);
    if (rank == prediction->first) prediction->velocity = velocity;
  }
}

at::Tensor Denoiser::operator()(size_t step, const at::Tensor &latents, const RunContext &context) {
  const Replicas &expert = expert_of(step);
  // With a scale of 1 the unguided prediction would cancel out.
  const double scale = scale_of(step);
  const bool guided = is_guided(options_) && scale != 1;
  const bool asks = guided && negative_;
  if (asks) negative_->begin_step(step, latents, context);
  if (&expert != expert_) change_expert(expert, guided && !asks);
  if (asks) sharing_.predictions = 2;
  const std::vector<at::Tensor> inputs = expert.spread(inputs_.of(latents));
  expert.threads().run(
      [&](int64_t rank) { predict(rank, step, inputs[static_cast<size_t>(rank)], context); });
  for (Prediction &prediction : predictions_) cached_ += prediction.sessions.front().skipped();
  const at::Tensor velocity = std::exchange(predictions_.front().velocity, {});
  if (!guided) return velocity.to(latents.device());
  const at::Tensor unconditional =
      (asks ? negative_->finish_step(context) : std::exchange(predictions_.back().velocity, {}))
          .to(velocity.device());
  return (unconditional + (velocity - unconditional) * scale).to(latents.device());
}

}  // namespace wan
