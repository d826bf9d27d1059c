// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Causal models from noise to latents, a section at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "checkpoint/causal.h"
#include "pipeline/causal_expert.h"
#include "run_context.h"

namespace wan {

/// Standard normal noise of a shape, for the latent frames from `first_frame` on, counted since all was
/// forgotten. draw: 0 for what they begin from, then 1, 2, … where the sampler asks for more.
using SectionNoise = std::function<at::Tensor(int64_t first_frame, int64_t draw, at::IntArrayRef shape)>;

/// From a CPU generator, and a function of the seed, the place behind the frame `origin` and the draw alone:
/// what else happens in a video does not change the noise of its later sections.
SectionNoise seeded_noise(uint64_t seed, at::Device device, int64_t origin = 0);

/// What all sections of a video have in common.
struct SectionSetup {
  CausalConfig causal;
  const TransformerConfig &config;
  std::vector<Replicas> experts;    // one, or that for high noise and that for low noise
  int64_t channels, height, width;  // of the latents
};

class SectionDenoiser {
 public:
  virtual ~SectionDenoiser() = default;

  /// The prompt from the next section on, and how that follows: RECACHE, CROSS or CUT.
  virtual void set_text(const at::Tensor &text, WanPromptSwitch how) = 0;
  /// The next section begins a scene, from a picture's latent, [1, C, 1, H, W], if that is defined. Where the
  /// family forgets all before a scene (CausalConfig::forgets_scenes()), it is what it would be in a video of
  /// its own.
  virtual void begin_scene(const at::Tensor &image) = 0;
  virtual void set_noise(SectionNoise noise) = 0;
  /// Where all is computed anew from the last latents: what stands for the scene's first one, [1, C, 1, H,
  /// W].
  virtual void set_anchor(const at::Tensor &latent) = 0;
  /// Hears of each step of a section that is done.
  using StepDone = std::function<void(int32_t step)>;
  /// The latents of the next section, [1, C, F, H, W] float32.
  virtual at::Tensor next(const RunContext &run, const StepDone &step_done) = 0;
};

/// text: [1, L, text_dim]. sections: of the whole video, for those who denoise several at once; 0: endless.
std::unique_ptr<SectionDenoiser> make_section_denoiser(const SectionSetup &setup, const at::Tensor &text,
                                                       SectionNoise noise, int64_t sections = 0);

}  // namespace wan
