// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/rolling_denoiser.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace wan {

namespace {

RollingWindow window_of(const CausalConfig &causal) {
  return {causal.local_attn_size, causal.sink_size,
          causal.relative_positions ? FramePositions::kRelative : FramePositions::kAbsolute};
}

}  // namespace

RollingDenoiser::RollingDenoiser(const SectionSetup &setup, const at::Tensor &text, SectionNoise noise)
    : setup_(setup), causal_(setup_.causal), noise_(std::move(noise)) {
  for (const Replicas &expert : setup.experts) {
    const RollingWindow window = window_of(causal_);
    experts_.push_back(
        {CausalExpert(expert, setup.config, window.slots(), setup.height, setup.width, window.moves(), text),
         window});
  }
  if (causal_.shared_text_kv) experts_.back().network.share_text_of(experts_.front().network);
}

void RollingDenoiser::set_text(const at::Tensor &text, WanPromptSwitch how) {
  change_.text = text;
  change_.how = how;
  change_.scene |= how == WAN_SWITCH_CUT;
}

void RollingDenoiser::begin_scene(const at::Tensor &image) {
  change_.scene = true;
  change_.image = image;
}

RollingDenoiser::Expert &RollingDenoiser::expert_at(double timestep) {
  const bool low = experts_.size() > 1 && timestep < *causal_.boundary_ratio * 1000;
  return low ? experts_.back() : experts_.front();
}

/// Where the next section stands for the window.
int64_t RollingDenoiser::place() const {
  return causal_.memory == CausalMemory::kRebuilt ? std::min(frame_, kRebuiltFrames) : frame_;
}

void RollingDenoiser::use_text(const at::Tensor &text) {
  if (!text.defined()) return;
  for (Expert &expert : experts_) expert.network.set_text(text);
}

void RollingDenoiser::forget() {
  for (Expert &expert : experts_) expert.window.forget();
  history_.clear();
  anchor_.reset();
  unsettled_.reset();
  new_sink_.reset();
  frame_ = 0;
}

/// What was remembered under the old prompt stays so, but where all of it is computed anew.
void RollingDenoiser::apply(const Change &change, const RunContext &run) {
  const bool recaches = change.text.defined() && change.how == WAN_SWITCH_RECACHE && !change.scene &&
                        !history_.empty() && causal_.memory == CausalMemory::kRolling;
  if (change.scene)
    begin_new_scene(change.image, run);
  else if (!recaches)
    settle(run);
  use_text(change.text);
  if (recaches) recache(run);
}

void RollingDenoiser::begin_new_scene(const at::Tensor &image, const RunContext &run) {
  if (causal_.forgets_scenes(image.defined()) || history_.empty()) return forget();
  settle(run);
  for (Expert &expert : experts_) expert.window.add_offset(causal_.scene_offset);
}

void RollingDenoiser::settle(const RunContext &run) {
  if (!unsettled_.defined()) return;
  if (causal_.memory == CausalMemory::kRebuilt)
    rebuild(run);
  else
    remember(unsettled_, frame_ - unsettled_.size(2), run);
  unsettled_.reset();
}

void RollingDenoiser::remember(const at::Tensor &latents, int64_t start, const RunContext &run) {
  for (Expert &expert : experts_)
    expert.network.remember(latents, expert.window.begin(start, latents.size(2)), run);
}

void RollingDenoiser::recache(const RunContext &run) {
  if (causal_.recache_frames > 0) return recache_last(causal_.recache_frames, run);
  const auto frames = static_cast<int64_t>(history_.size());
  const at::Tensor latents = at::cat(std::vector<at::Tensor>(history_.begin(), history_.end()), 2);
  for (Expert &expert : experts_)
    expert.network.remember(latents,
                            expert.window.recache(frame_ - frames, frames, !causal_.recache_keeps_sink), run);
  unsettled_.reset();
}

void RollingDenoiser::recache_last(int64_t frames, const RunContext &run) {
  while (std::ssize(history_) > frames) history_.pop_front();
  const std::vector<at::Tensor> context(history_.begin(), history_.end());
  for (Expert &expert : experts_) expert.window.forget();
  remember(at::cat(context, 2), frame_ - std::ssize(context), run);
  unsettled_.reset();
  new_sink_ = frame_;
}

/// Once the first section of the new prompt is made, what came before it is forgotten: it shows the old
/// scene, and as the sink it would do so for ever.
void RollingDenoiser::begin_new_sink() {
  if (!new_sink_ || *new_sink_ == frame_) return;
  for (Expert &expert : experts_) expert.window.forget_before(*new_sink_);
  new_sink_.reset();
}

/// In blocks, of which each sees itself and those before it.
void RollingDenoiser::rebuild(const RunContext &run) {
  std::vector<at::Tensor> context(history_.end() - std::min<int64_t>(kRebuiltFrames, std::ssize(history_)),
                                  history_.end());
  if (frame_ > kRebuiltFrames) context.front() = anchor_;
  for (Expert &expert : experts_) expert.window.forget();
  remember(at::cat(context, 2), 0, run);
}

void RollingDenoiser::keep(const at::Tensor &latents) {
  for (const at::Tensor &frame : latents.split(1, 2)) {
    if (!anchor_.defined()) anchor_ = frame;
    history_.push_back(frame);
    if (std::ssize(history_) > causal_.local_attn_size) history_.pop_front();
  }
  unsettled_ = latents;
  frame_ += latents.size(2);
}

at::Tensor RollingDenoiser::place_image(const at::Tensor &image, const RunContext &run) {
  if (!image.defined() || causal_.image_start != ImageStart::kAlone) return {};
  keep(image);
  settle(run);
  return image;
}

at::Tensor RollingDenoiser::denoise(int64_t frames, const at::Tensor &clean_frame, const RunContext &run,
                                    const StepDone &step_done) {
  const std::vector<int64_t> shape = {1, setup_.channels, frames, setup_.height, setup_.width};
  int64_t draw = 0;
  const FreshNoise fresh = [&] { return noise_(frame_, draw++, shape); };
  const auto with_clean_frame = [&](const at::Tensor &x) {
    return clean_frame.defined() ? at::cat({clean_frame, x.narrow(2, 1, frames - 1)}, 2) : x;
  };
  const auto sampler = make_section_sampler(causal_);
  at::Tensor x = fresh();
  int32_t done = 0;
  for (const double timestep : sampler->timesteps()) {
    x = with_clean_frame(x);
    std::vector<double> timesteps(static_cast<size_t>(frames), timestep);
    if (clean_frame.defined()) timesteps.front() = 0;
    Expert &expert = expert_at(timestep);
    const at::Tensor velocity = expert.network(x, timesteps, expert.window.begin(place(), frames), run);
    x = sampler->step(velocity, x, fresh);
    step_done(++done);
  }
  return with_clean_frame(x);
}

at::Tensor RollingDenoiser::next(const RunContext &run, const StepDone &step_done) {
  const Change change = std::exchange(change_, {});
  apply(change, run);
  begin_new_sink();
  const at::Tensor placed = place_image(change.image, run);
  const bool inside = change.image.defined() && causal_.image_start == ImageStart::kInside;
  const int64_t frames = frame_ == 0 ? causal_.first_block : causal_.num_frames_per_block;
  const int64_t start = place();
  const at::Tensor latents = denoise(frames, inside ? change.image : at::Tensor(), run, step_done);
  if (change.scene && causal_.scene_offset)
    for (Expert &expert : experts_) expert.window.pin(start, std::min(causal_.sink_size, frames));
  keep(latents);
  return placed.defined() ? at::cat({placed, latents}, 2) : latents;
}

}  // namespace wan
