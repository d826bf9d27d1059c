// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Sections one after the other, each denoised while it sees the finished ones before it: all families but
// Rolling Forcing.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "pipeline/section_denoiser.h"
#include "scheduler/section_sampler.h"

namespace wan {

class RollingDenoiser : public SectionDenoiser {
 public:
  RollingDenoiser(const SectionSetup &setup, const at::Tensor &text, SectionNoise noise);

  void set_text(const at::Tensor &text, WanPromptSwitch how) override;
  void begin_scene(const at::Tensor &image) override;
  void set_noise(SectionNoise noise) override { noise_ = std::move(noise); }
  void set_anchor(const at::Tensor &latent) override { anchor_ = latent; }
  at::Tensor next(const RunContext &run, const StepDone &step_done) override;

 private:
  struct Expert {
    CausalExpert network;
    RollingWindow window;
  };
  /// What was asked for since the last section.
  struct Change {
    at::Tensor text, image;
    WanPromptSwitch how = WAN_SWITCH_CROSS;
    bool scene = false;
  };

  Expert &expert_at(double timestep);
  void apply(const Change &change, const RunContext &run);
  void use_text(const at::Tensor &text);
  void begin_new_scene(const at::Tensor &image, const RunContext &run);
  void forget();
  void settle(const RunContext &run);
  void remember(const at::Tensor &latents, int64_t start, const RunContext &run);
  void recache(const RunContext &run);
  void recache_last(int64_t frames, const RunContext &run);
  void begin_new_sink();
  void rebuild(const RunContext &run);
  void keep(const at::Tensor &latents);
  at::Tensor place_image(const at::Tensor &image, const RunContext &run);
  at::Tensor denoise(int64_t frames, const at::Tensor &clean_frame, const RunContext &run,
                     const StepDone &step_done);
  int64_t place() const;

  const SectionSetup setup_;
  const CausalConfig &causal_;
  std::deque<Expert> experts_;
  SectionNoise noise_;
  Change change_;
  int64_t frame_ = 0;     // the first of the next section, counted since all was forgotten
  at::Tensor unsettled_;  // the last section, before its keys and values are those of finished latents
  std::deque<at::Tensor> history_;  // the last latents of the scene, a frame each
  at::Tensor anchor_;               // the first one, or what was set in its place
  std::optional<int64_t> new_sink_;  // the frame at which it begins, while older ones are remembered
};

}  // namespace wan
