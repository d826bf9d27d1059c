// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One expert at work for one prompt.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "transformer/wan_transformer_3d.h"
#include "wan/engine.h"

namespace wan {

/// An expert, and what it keeps of one prompt from step to step; of one rank.
class ExpertSession {
 public:
  /// See WanTransformer3DModel::encode(). group: the rank's, whose other ranks do the same.
  ExpertSession(const WanTransformer3DModel &expert, const at::Tensor &text, const at::Tensor &image,
                const WanGenerateOptions &options, SequenceGroup group = {});

  /// One velocity, as WanTransformer3DModel gives it. next: whose forward follows.
  at::Tensor operator()(const at::Tensor &latents, const std::vector<TimeSegment> &times,
                        const RotaryEmbedding &rotary, const WanTransformer3DModel &next,
                        const RunContext &context);
  /// For a session of the same pictures that had its forward: what it keeps of them serves both.
  void share_pictures(const ExpertSession &other) { context_.share_pictures(other.context_); }
  /// Whether the last one was made with the cache.
  bool skipped() const { return cache_ && cache_->skipped(); }

 private:
  const WanTransformer3DModel &expert_;
  const SequenceGroup group_;
  EncodedContext context_;
  std::optional<StepCache> cache_;
};

}  // namespace wan
