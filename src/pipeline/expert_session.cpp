// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/expert_session.h"

#include <utility>

namespace wan {

ExpertSession::ExpertSession(const WanTransformer3DModel &expert, const at::Tensor &text,
                             const at::Tensor &image, const WanGenerateOptions &options, SequenceGroup group)
    : expert_(expert),
      group_(std::move(group)),
      context_(expert.encode(text.to(expert.device()), image.defined() ? image.to(expert.device()) : image)) {
  if (options.cache == WAN_CACHE_FIRST_BLOCK) cache_.emplace(options.cache_threshold);
}

at::Tensor ExpertSession::operator()(const at::Tensor &latents, const std::vector<TimeSegment> &times,
                                     const RotaryEmbedding &rotary, const WanTransformer3DModel &next,
                                     const RunContext &context) {
  return expert_(latents, {.rotary = rotary,
                           .times = times,
                           .context = context_,
                           .run = context,
                           .cache = cache_ ? &*cache_ : nullptr,
                           .next = &next,
                           .group = group_});
}

}  // namespace wan
