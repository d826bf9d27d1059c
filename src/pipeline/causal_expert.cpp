// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/causal_expert.h"

#include <utility>

namespace wan {

namespace {

/// Frames that follow each other and have the same timestep are one segment of tokens.
std::vector<TimeSegment> segments(const std::vector<double> &timesteps, int64_t frame_tokens) {
  std::vector<TimeSegment> segments;
  for (size_t frame = 0; frame < timesteps.size(); ++frame)
    if (segments.empty() || segments.back().timestep != timesteps[frame])
      segments.push_back({static_cast<int64_t>(frame) * frame_tokens, timesteps[frame]});
  return segments;
}

}  // namespace

CausalExpert::CausalExpert(const WanTransformer3DModel &model, const TransformerConfig &config, int64_t slots,
                           int64_t height, int64_t width, bool keeps_unrotated, const at::Tensor &text)
    : model_(model),
      frame_tokens_(height / config.patch_height * (width / config.patch_width)),
      context_(model.encode(text)),
      cache_(config, slots, height / config.patch_height, width / config.patch_width, keeps_unrotated,
             model.dtype(), model.device()) {}

at::Tensor CausalExpert::operator()(const at::Tensor &latents, const std::vector<double> &timesteps,
                                    KeyPlan plan, const RunContext &run) {
  return forward(latents, timesteps, std::move(plan), /*remembers_only=*/false, run).to(at::kFloat);
}

void CausalExpert::remember(const at::Tensor &latents, KeyPlan plan, const RunContext &run) {
  const std::vector<double> timesteps(static_cast<size_t>(latents.size(2)), 0.0);
  forward(latents, timesteps, std::move(plan), /*remembers_only=*/true, run);
}

const EncodedTimes &CausalExpert::encode_times(const std::vector<TimeSegment> &times) {
  std::vector<double> key;
  for (const TimeSegment &segment : times)
    key.insert(key.end(), {segment.timestep, static_cast<double>(segment.first_token)});
  const auto known = times_.find(key);
  return known != times_.end() ? known->second : times_.emplace(key, model_.encode(times)).first->second;
}

at::Tensor CausalExpert::forward(const at::Tensor &latents, const std::vector<double> &timesteps,
                                 KeyPlan plan, bool remembers_only, const RunContext &run) {
  cache_.begin(std::move(plan));
  if (text_of_) context_.share_text(text_of_->context_);
  const std::vector<TimeSegment> times = segments(timesteps, frame_tokens_);
  return model_(latents, {.rotary = cache_.rotary(),
                          .times = times,
                          .context = context_,
                          .run = run,
                          .encoded_times = &encode_times(times),
                          .keys = &cache_,
                          .remembers_only = remembers_only});
}

}  // namespace wan
