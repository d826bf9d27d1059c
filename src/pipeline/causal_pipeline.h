// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Endless videos: sections of latents one after the other, and what their prompts and pictures do to them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "output/frame_pool.h"
#include "output/section_output.h"
#include "pipeline/components.h"
#include "pipeline/prompt_encoder.h"
#include "pipeline/section_denoiser.h"
#include "run_context.h"
#include "wan/engine.h"

namespace wan {

class CausalPipeline {
 public:
  /// All must outlive it.
  CausalPipeline(Components &components, PromptEncoder &encode_prompts)
      : components_(components), encode_prompts_(encode_prompts) {}

  /// How the ranks will share the passes of such a video.
  RankSharing sharing(const WanGenerateOptions &options) const;

  /// Hears the latents of each section, [1, z_dim, F, H, W].
  using SectionListener = std::function<void(const at::Tensor &latents)>;

  /// Until the receiver wants no more, or options.num_frames are made. Throws wan::Error.
  void generate(const WanGenerateOptions &options, std::shared_ptr<FramePool> pool, const RunContext &context,
                const SectionListener &section_done = {});

 private:
  struct Plan {
    CausalConfig causal;    // with the options' flow-shift
    int64_t height, width;  // of the latents
    bool keeps_text_encoder;
  };

  Plan plan(const WanGenerateOptions &options) const;
  SectionSetup setup(const Plan &plan) const;
  at::Tensor encode_frame(const at::Tensor &frame, const RunContext &context) const;
  at::Tensor encode_picture(const WanGenerateOptions &options, const RunContext &context) const;
  at::Tensor encode_prompt(const char *prompt, const Plan &plan, const RunContext &context);
  at::Tensor denoise(SectionDenoiser &denoiser, const Plan &plan, const RunContext &context) const;
  bool change(const WanSection &section, const WanGenerateOptions &options, const Plan &plan,
              SectionDenoiser &denoiser, const RunContext &context);
  void make_sections(SectionDenoiser &denoiser, const WanGenerateOptions &options, const Plan &plan,
                     SectionOutput &output, const RunContext &context, const SectionListener &section_done);

  Components &components_;
  PromptEncoder &encode_prompts_;
};

}  // namespace wan
