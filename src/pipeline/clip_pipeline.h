// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From a clip's options to its frames: diffusers' WanPipeline and WanImageToVideoPipeline, with the decoder
// as a stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <functional>
#include <memory>

#include "output/frame_pool.h"
#include "output/kept_frames.h"
#include "pipeline/causal_pipeline.h"
#include "pipeline/clip_plan.h"
#include "pipeline/components.h"
#include "pipeline/conditioning.h"
#include "pipeline/model_inputs.h"
#include "pipeline/negative_denoiser.h"
#include "pipeline/prompt_encoder.h"
#include "run_context.h"
#include "scheduler/scheduler.h"

namespace wan {

class ClipPipeline {
 public:
  /// See Components. negative: who computes the predictions of negative prompts; null: the same devices.
  ClipPipeline(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source, Tokenizer tokenizer,
               const Placement &placement, WanMemoryMode memory,
               std::unique_ptr<NegativeDenoiser> negative = nullptr);

  /// Hears the latents after each denoising step, or of an endless video those of each section: [1, z_dim, T,
  /// H, W].
  using StepListener = std::function<void(const at::Tensor &latents)>;

  /// Throws wan::Error.
  void generate(const WanGenerateOptions &options, const RunContext &context,
                const StepListener &step_done = {});

  const Components &components() const { return components_; }
  /// Of the pool that decoded frames lie in. Callable from any thread.
  uint64_t pool_bytes() const { return frame_pool_->bytes(); }
  /// Of the newest clip. Likewise.
  RankSharing sharing() const { return sharing_; }

 private:
  at::Tensor denoise(const WanGenerateOptions &options, const ClipPlan &plan, const ModelInputs &inputs,
                     const RunContext &context, const StepListener &step_done);
  void tell_sharing(const RankSharing &sharing, const RunContext &context);
  /// The last frame of the clip before, as the next one begins with it; undefined: none.
  at::Tensor kept_frame(const WanGenerateOptions &options) const;
  ClipEnds find_ends(const WanGenerateOptions &options, const RunContext &context) const;
  void require_usable(const at::Tensor &latents, const WanGenerateOptions &options) const;

  Components components_;
  PromptEncoder encode_prompts_;
  Conditioning condition_;
  CausalPipeline causal_;
  KeptFrames tails_, last_frames_, colours_;  // colours_: of the clips that films begin with
  const std::shared_ptr<FramePool> frame_pool_;
  const std::unique_ptr<NegativeDenoiser> negative_;
  std::atomic<RankSharing> sharing_ = RankSharing{1, 1};
};

}  // namespace wan
