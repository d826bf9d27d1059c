// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the denoiser is given of a clip beside the noise: made once, the same in all steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "pipeline/prompt_encoder.h"
#include "transformer/pass.h"

namespace wan {

struct ModelInputs {
  PromptEmbeddings text;
  at::Tensor channels;     // [1, C, T, H, W] float32, behind the noise's; undefined: none
  at::Tensor clean_frame;  // [1, z_dim, 1, H, W] float32, in place of the first latent frame; undefined: none
  at::Tensor image;        // [pictures, L, image_dim], CLIP's tokens; undefined: none

  /// latents: [1, z_dim, T, H, W] float32. Returns what the model takes of them.
  at::Tensor of(const at::Tensor &latents) const;
  /// What has which timestep. tokens, frames: of all latents.
  std::vector<TimeSegment> times(double timestep, int64_t tokens, int64_t frames) const;
  /// The latents with the clean frame, if there is one.
  at::Tensor with_clean_frame(const at::Tensor &latents) const;
};

}  // namespace wan
