// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One network of a causal model at work: what it keeps of the prompt and of earlier frames.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "pipeline/replicas.h"
#include "run_context.h"

namespace wan {

class CausalExpert {
 public:
  /// slots: latent frames that are remembered; height, width: of the latents. See KeyValueCache. text: as
  /// WanTransformer3DModel::encode() takes it. The ranks compute each pass together.
  CausalExpert(const Replicas &network, const TransformerConfig &config, int64_t slots, int64_t height,
               int64_t width, bool keeps_unrotated, const at::Tensor &text);

  void set_text(const at::Tensor &text);
  /// From now on the prompt's keys and values are those of another network of the same shape, which must
  /// outlive it and is given the same prompts, where that has them.
  void share_text_of(const CausalExpert &other) { text_of_ = &other; }
  /// One velocity, float32. latents: [1, C, F, H, W]; timesteps: of each of the F frames.
  at::Tensor operator()(const at::Tensor &latents, const std::vector<double> &timesteps, const KeyPlan &plan,
                        const RunContext &run);
  /// Remembers finished latents.
  void remember(const at::Tensor &latents, const KeyPlan &plan, const RunContext &run);

 private:
  /// What one rank has of it.
  struct Rank {
    const WanTransformer3DModel &model;
    SequenceGroup group;
    EncodedContext context;
    KeyValueCache cache;                                // of its heads
    std::map<std::vector<double>, EncodedTimes> times;  // by timesteps and first tokens, which come again

    const EncodedTimes &encode_times(const std::vector<TimeSegment> &segments);
    at::Tensor forward(const at::Tensor &latents, const std::vector<TimeSegment> &segments,
                       const KeyPlan &plan, bool remembers_only, const RunContext &run);
  };

  at::Tensor forward(const at::Tensor &latents, const std::vector<double> &timesteps, const KeyPlan &plan,
                     bool remembers_only, const RunContext &run);

  const Replicas network_;
  const int64_t frame_tokens_;
  std::deque<Rank> ranks_;
  const CausalExpert *text_of_ = nullptr;
};

}  // namespace wan
