// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/causal_expert.h"

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

CausalExpert::CausalExpert(const Replicas &network, const TransformerConfig &config, int64_t slots,
                           int64_t height, int64_t width, bool keeps_unrotated, const at::Tensor &text)
    : network_(network), frame_tokens_(height / config.patch_height * (width / config.patch_width)) {
  const int64_t heads = config.num_attention_heads;
  const RankSharing sharing = share_step(network.threads().count(), /*guided=*/false, heads, frame_tokens_);
  for (const SequenceGroup &member : network.threads().group(0, sharing.ranks)) {
    const WanTransformer3DModel &model = network[member.rank()];
    ranks_.push_back({model,
                      member,
                      model.encode(text.to(model.device())),
                      {config, member.own_share(heads).count, slots, height / config.patch_height,
                       width / config.patch_width, keeps_unrotated, model.dtype(), model.device()},
                      {}});
  }
}

void CausalExpert::set_text(const at::Tensor &text) {
  for (Rank &rank : ranks_) rank.context = rank.model.encode(text.to(rank.model.device()));
}

at::Tensor CausalExpert::operator()(const at::Tensor &latents, const std::vector<double> &timesteps,
                                    const KeyPlan &plan, const RunContext &run) {
  return forward(latents, timesteps, plan, /*remembers_only=*/false, run).to(at::kFloat);
}

void CausalExpert::remember(const at::Tensor &latents, const KeyPlan &plan, const RunContext &run) {
  const std::vector<double> timesteps(static_cast<size_t>(latents.size(2)), 0.0);
  forward(latents, timesteps, plan, /*remembers_only=*/true, run);
}

const EncodedTimes &CausalExpert::Rank::encode_times(const std::vector<TimeSegment> &segments) {
  std::vector<double> key;
  for (const TimeSegment &segment : segments)
    key.insert(key.end(), {segment.timestep, static_cast<double>(segment.first_token)});
  const auto known = times.find(key);
  return known != times.end() ? known->second : times.emplace(key, model.encode(segments)).first->second;
}

at::Tensor CausalExpert::Rank::forward(const at::Tensor &latents, const std::vector<TimeSegment> &segments,
                                       const KeyPlan &plan, bool remembers_only, const RunContext &run) {
  cache.begin(plan);
  return model(latents, {.rotary = cache.rotary(),
                         .times = segments,
                         .context = context,
                         .run = run,
                         .encoded_times = &encode_times(segments),
                         .keys = &cache,
                         .group = group,
                         .remembers_only = remembers_only});
}

at::Tensor CausalExpert::forward(const at::Tensor &latents, const std::vector<double> &timesteps,
                                 const KeyPlan &plan, bool remembers_only, const RunContext &run) {
  const std::vector<TimeSegment> segments = wan::segments(timesteps, frame_tokens_);
  const std::vector<at::Tensor> copies = network_.spread(latents);
  at::Tensor velocity;
  network_.threads().run([&](int64_t rank) {
    if (rank >= std::ssize(ranks_)) return;
    const auto index = static_cast<size_t>(rank);
    if (text_of_) ranks_[index].context.share_text(text_of_->ranks_[index].context);
    const at::Tensor own = ranks_[index].forward(copies[index], segments, plan, remembers_only, run);
    if (rank == 0) velocity = own;
  });
  return velocity;
}

}  // namespace wan
