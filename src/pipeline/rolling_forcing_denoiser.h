// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rolling Forcing: as many sections as there are steps are denoised at once, each a step further than the one
// behind it (https://arxiv.org/abs/2509.25161).
#pragma once

#include <deque>
#include <vector>

#include "pipeline/section_denoiser.h"
#include "scheduler/section_sampler.h"

namespace wan {

class RollingForcingDenoiser : public SectionDenoiser {
 public:
  /// sections: after so many of the first scene the windows become shorter; 0: never.
  RollingForcingDenoiser(const SectionSetup &setup, const at::Tensor &text, SectionNoise noise,
                         int64_t sections);

  void set_text(const at::Tensor &text, WanPromptSwitch how) override;
  /// No picture: the family begins from none.
  void begin_scene(const at::Tensor &image) override;
  void set_noise(SectionNoise noise) override { noise_ = std::move(noise); }
  /// Nothing is computed anew.
  void set_anchor(const at::Tensor & /*latent*/) override {}
  at::Tensor next(const RunContext &run, const StepDone &step_done) override;

 private:
  struct Section {
    at::Tensor latents;
    size_t step;  // the next one
  };

  at::Tensor noise_of(int64_t section, int64_t draw) const;
  void take_in_next();
  at::Tensor predict(const RunContext &run);
  /// Returns the first section, finished as far as it is.
  at::Tensor advance(const RunContext &run);

  const SectionSetup setup_;
  const int64_t section_frames_;
  int64_t sections_;  // of the scene, 0: that is not known
  const RenoiseTable table_;
  const std::vector<double> timesteps_;
  RollingForcingWindow window_;
  CausalExpert network_;
  SectionNoise noise_;
  std::deque<Section> in_flight_;
  int64_t first_ = 0;  // section in flight, of the scene
};

}  // namespace wan
