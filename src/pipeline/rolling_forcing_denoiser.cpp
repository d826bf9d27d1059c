// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/rolling_forcing_denoiser.h"

#include <ATen/ATen.h>

#include <utility>

namespace wan {

RollingForcingDenoiser::RollingForcingDenoiser(const SectionSetup &setup, const at::Tensor &text,
                                               SectionNoise noise, int64_t sections)
    : setup_(setup),
      section_frames_(setup.causal.num_frames_per_block),
      sections_(sections),
      table_(setup.causal.flow_shift),
      timesteps_(make_section_sampler(setup.causal)->timesteps()),
      window_(section_frames_, setup.causal.local_attn_size, setup.causal.local_attn_size + section_frames_,
              std::ssize(timesteps_)),
      network_(setup.experts.front(), setup.config, window_.slots(), setup.height, setup.width,
               /*keeps_unrotated=*/true, text),
      noise_(std::move(noise)) {}

void RollingForcingDenoiser::set_text(const at::Tensor &text, WanPromptSwitch how) {
  network_.set_text(text);
  if (how == WAN_SWITCH_CUT) begin_scene({});
}

void RollingForcingDenoiser::begin_scene(const at::Tensor & /*image*/) {
  window_.forget();
  in_flight_.clear();
  first_ = sections_ = 0;
}

at::Tensor RollingForcingDenoiser::noise_of(int64_t section, int64_t draw) const {
  return noise_(section * section_frames_, draw,
                {1, setup_.channels, section_frames_, setup_.height, setup_.width});
}

void RollingForcingDenoiser::take_in_next() {
  const int64_t section = first_ + std::ssize(in_flight_);
  const bool full = in_flight_.size() == timesteps_.size();
  if (!full && (sections_ == 0 || section < sections_)) in_flight_.push_back({noise_of(section, 0), 0});
}

at::Tensor RollingForcingDenoiser::predict(const RunContext &run) {
  std::vector<at::Tensor> latents;
  std::vector<double> timesteps;
  for (const Section &section : in_flight_) {
    latents.push_back(section.latents);
    timesteps.insert(timesteps.end(), static_cast<size_t>(section_frames_), timesteps_[section.step]);
  }
  const int64_t start = first_ * section_frames_;
  return network_(at::cat(latents, 2), timesteps, window_.begin(start, std::ssize(timesteps)), run);
}

at::Tensor RollingForcingDenoiser::advance(const RunContext &run) {
  const at::Tensor velocity = predict(run);
  at::Tensor oldest;
  for (int64_t i = 0; i < std::ssize(in_flight_); ++i) {
    Section &section = in_flight_[static_cast<size_t>(i)];
    const at::Tensor x0 = finished(section.latents, velocity.narrow(2, i * section_frames_, section_frames_),
                                   table_.sigma(timesteps_[section.step]));
    if (i == 0) oldest = x0;
    if (++section.step == timesteps_.size()) continue;
    const at::Tensor noise = noise_of(first_ + i, static_cast<int64_t>(section.step));
    section.latents = renoised(x0, noise, table_.sigma(timesteps_[section.step]));
  }
  network_.remember(oldest, window_.finish(first_ * section_frames_), run);
  return oldest;
}

at::Tensor RollingForcingDenoiser::next(const RunContext &run, const StepDone &step_done) {
  int32_t done = 0;
  for (;;) {
    take_in_next();
    const at::Tensor oldest = advance(run);
    step_done(++done);
    if (in_flight_.front().step < timesteps_.size()) continue;
    in_flight_.pop_front();
    ++first_;
    return oldest;
  }
}

}  // namespace wan
