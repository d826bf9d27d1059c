// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What pictures become for the denoiser: diffusers.pipelines.wan.pipeline_wan_i2v.WanImageToVideoPipeline.
#pragma once

#include <ATen/core/Tensor.h>

#include "pipeline/clip_plan.h"
#include "pipeline/components.h"
#include "pipeline/model_inputs.h"
#include "pipeline/pictures.h"
#include "run_context.h"

namespace wan {

/// What a clip begins from, and what it ends with.
struct ClipEnds {
  Pictures pictures;
  at::Tensor kept_frame;  // [1, 3, 1, H, W] float32 in [-1, 1], where there is no first picture
};

class Conditioning {
 public:
  explicit Conditioning(Components &components) : components_(components) {}

  /// Adds to the inputs of a clip what the model makes of its ends. Throws wan::Error.
  void operator()(const ClipEnds &ends, const WanGenerateOptions &options, const ClipPlan &plan,
                  const RunContext &context, ModelInputs &inputs);

 private:
  /// [1, 3, 1, H, W] float32 in [-1, 1] each; undefined where there is none.
  struct Frames {
    at::Tensor first, last;
  };

  class Progress;

  Frames frames_of(const ClipEnds &ends, const WanGenerateOptions &options) const;
  at::Tensor encode(const Video &video, const ClipPlan &plan, const RunContext &context,
                    Progress &progress) const;
  at::Tensor channels(const Frames &frames, const WanGenerateOptions &options, const ClipPlan &plan,
                      const RunContext &context, Progress &progress) const;
  at::Tensor clip_tokens(const ClipEnds &ends, const ClipPlan &plan, const RunContext &context);

  Components &components_;
};

}  // namespace wan
