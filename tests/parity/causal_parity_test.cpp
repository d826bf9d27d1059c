// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Causal models in float32, from noise to latents: causal.safetensors of make_causal_reference.py, whose
// reference was compared with the authors' own programs.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

#include "common/largest_error.h"
#include "common/reference.h"
#include "common/tiny_model.h"
#include "pipeline/section_denoiser.h"

namespace wan::test {
namespace {

constexpr double kCallTolerance = 1e-5, kLoopTolerance = 1e-4;
constexpr int64_t kHeight = 4, kWidth = 6;

/// The weights under a prefix of the reference.
class ReferenceWeights : public WeightSource {
 public:
  ReferenceWeights(const Reference &reference, std::string prefix)
      : reference_(reference), prefix_(std::move(prefix)) {}
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    return reference_[prefix_ + name].reshape(shape).to(dtype).to(test_device());
  }

 private:
  const Reference &reference_;
  const std::string prefix_;
};

TransformerConfig reference_config() {
  TransformerConfig config{};
  config.num_attention_heads = 2;
  config.attention_head_dim = 32;
  config.in_channels = config.out_channels = 4;
  config.text_dim = 24;
  config.freq_dim = 256;
  config.ffn_dim = 96;
  config.num_layers = 2;
  config.patch_height = config.patch_width = 2;
  config.rope_max_seq_len = 1024;
  config.eps = 1e-6;
  return config;
}

/// The reference's frames are before its channels.
at::Tensor with_channels_first(const at::Tensor &latents) {
  return latents.transpose(1, 2).contiguous();
}

class Causal : public testing::Test, protected LargestError {
 protected:
  at::Tensor reference(const std::string &name) const { return reference_[name].to(test_device()); }
  at::Tensor latents(const std::string &name) const { return with_channels_first(reference(name)); }
  WanTransformer3DModel model(const std::string &prefix) const {
    ReferenceWeights weights(reference_, prefix);
    return WanTransformer3DModel(config_, Weights(weights, at::kFloat));
  }
  SectionSetup setup(const CausalConfig &causal) const {
    SectionSetup setup = {causal, config_, {model_}, 4, kHeight, kWidth};
    if (causal.boundary_ratio) setup.experts = {high_noise_model_, model_};
    return setup;
  }
  /// The reference's noise, and its draws in the order of their calls.
  SectionNoise noise_of(const std::string &name, int64_t draws_a_section, int64_t section,
                        int64_t first) const {
    const at::Tensor noise = latents("noise");
    const at::Tensor draws = draws_a_section ? reference(name + ".draws") : at::Tensor();
    return [=](int64_t frame, int64_t draw, at::IntArrayRef shape) {
      if (draw == 0) return noise.narrow(2, frame, shape[2]);
      return with_channels_first(draws[(frame - first) / section * draws_a_section + draw - 1]);
    };
  }

  using BeforeSection = std::map<int64_t, std::function<void(SectionDenoiser &)>>;

  void expect_rollout(const std::string &name, const CausalConfig &causal, int64_t draws_a_section,
                      const BeforeSection &before = {}, bool image_alone = false) {
    const at::Tensor expected = latents(name);
    const int64_t first = image_alone ? 1 : 0;
    const auto denoiser =
        make_section_denoiser(setup(causal), reference("text.0"),
                              noise_of(name, draws_a_section, causal.num_frames_per_block, first));
    std::vector<at::Tensor> sections;
    for (int64_t frame = 0; frame < expected.size(2); frame += sections.back().size(2)) {
      if (const auto action = before.find(frame); action != before.end()) action->second(*denoiser);
      sections.push_back(denoiser->next(quiet(), [](int32_t) {}));
    }
    expect_parity(at::cat(sections, 2), expected, name, kLoopTolerance);
  }

  /// shared: both with the prompt's keys and values of the one for high noise.
  void expect_two_experts(bool shared);

  const c10::InferenceMode inference_;
  const Reference reference_{"tests/parity/causal.safetensors"};
  const TransformerConfig config_ = reference_config();
  const WanTransformer3DModel model_ = model("w."), high_noise_model_ = model("w2.");
};

CausalConfig self_forcing(int64_t window, int64_t sink) {
  CausalConfig causal;
  causal.local_attn_size = window;
  causal.sink_size = sink;
  return causal;
}

CausalConfig longlive_2() {
  CausalConfig causal = self_forcing(8, 2);
  causal.num_frames_per_block = causal.first_block = 2;
  causal.sampler = SectionSolver::kUniPC;
  causal.scene_offset = 8;
  causal.image_start = ImageStart::kInside;
  return causal;
}

TEST_F(Causal, OnePassOverAllFramesWithATimestepEach) {
  CausalExpert expert(model_, config_, 6, kHeight, kWidth, /*keeps_unrotated=*/false, reference("text.0"));
  RollingWindow window(6, 0, FramePositions::kAbsolute);
  const at::Tensor t = reference("net.t").to(at::kCPU).to(at::kDouble);
  const std::vector<double> timesteps(t.const_data_ptr<double>(), t.const_data_ptr<double>() + t.numel());
  const at::Tensor out = expert(latents("noise").narrow(2, 0, 6), timesteps, window.begin(0, 6), quiet());
  expect_parity(out, latents("net.full"), "full attention", kCallTolerance);
}

TEST_F(Causal, SectionsThatSeeThoseBeforeThemAreOneMaskedPass) {
  CausalExpert expert(model_, config_, 6, kHeight, kWidth, /*keeps_unrotated=*/true, reference("text.0"));
  RollingWindow window(6, 0, FramePositions::kRelative);
  std::vector<at::Tensor> out;
  const at::Tensor noise = latents("noise");
  for (const auto &[start, timestep] : {std::pair{0, 0.0}, {3, 937.5}})
    out.push_back(
        expert(noise.narrow(2, start, 3), {timestep, timestep, timestep}, window.begin(start, 3), quiet()));
  expect_parity(at::cat(out, 2), latents("net.block_causal"), "block-causal", kCallTolerance);
}

TEST_F(Causal, SelfForcing) {
  expect_rollout("sf.global", self_forcing(21, 0), 3);
  expect_rollout("sf.w9s3", self_forcing(9, 3), 3);
  CausalConfig relative = self_forcing(9, 3);
  relative.relative_positions = true;
  expect_rollout("sf.w9s3.relative", relative, 3);
}

TEST_F(Causal, SelfForcingFromAPicture) {
  CausalConfig causal = self_forcing(21, 0);
  causal.image_start = ImageStart::kAlone;
  expect_rollout("sf.image", causal, 3,
                 {{0, [this](SectionDenoiser &denoiser) { denoiser.begin_scene(latents("image")); }}},
                 /*image_alone=*/true);
}

TEST_F(Causal, LongLiveIsGivenANewPrompt) {
  for (const int64_t frame : {9, 24})
    for (const std::string mode : {"cross", "recache", "recache-all"}) {
      CausalConfig causal = self_forcing(12, 3);
      causal.recache_keeps_sink = mode != "recache-all";
      const WanPromptSwitch how = mode == "cross" ? WAN_SWITCH_CROSS : WAN_SWITCH_RECACHE;
      expect_rollout(
          "switch." + mode + "." + std::to_string(frame), causal, 3,
          {{frame, [&](SectionDenoiser &denoiser) { denoiser.set_text(reference("text.1"), how); }}});
    }
}

TEST_F(Causal, ANewPromptLeavesTheLastSectionAlone) {
  const auto give = [this](const char *text) {
    return
        [this, text](SectionDenoiser &denoiser) { denoiser.set_text(reference(text), WAN_SWITCH_RECACHE); };
  };
  for (const std::string policy : {"absolute", "relative"}) {
    CausalConfig causal = self_forcing(12, 3);
    causal.recache_frames = 3;
    causal.relative_positions = policy == "relative";
    expect_rollout("switch.recache-last." + policy, causal, 3, {{9, give("text.1")}, {24, give("text.2")}});
  }
}

TEST_F(Causal, LongLive2) {
  expect_rollout("ll2.plain", longlive_2(), 0);
  expect_rollout("ll2.image", longlive_2(), 0,
                 {{0, [this](SectionDenoiser &denoiser) { denoiser.begin_scene(latents("image")); }}});
}

TEST_F(Causal, LongLive2CutsToNewScenes) {
  const auto cut_to = [this](const char *text) {
    return [this, text](SectionDenoiser &denoiser) { denoiser.set_text(reference(text), WAN_SWITCH_CUT); };
  };
  expect_rollout("ll2.shots", longlive_2(), 0,
                 {{4, cut_to("text.1")}, {8, cut_to("text.2")}, {28, cut_to("text.0")}});
}

/// Of window after window the noise of each section in flight but the oldest, which is finished: rows of the
/// whole window's draw.
SectionNoise rolling_forcing_noise(const at::Tensor &noise, const at::Tensor &draws, int64_t sections,
                                   int64_t steps) {
  std::map<std::pair<int64_t, int64_t>, std::pair<int64_t, int64_t>> places;  // of section and draw
  int64_t call = 0;
  for (int64_t window = 0; window < sections + steps - 1; ++window) {
    const int64_t oldest = std::max<int64_t>(0, window - steps + 1);
    for (int64_t section = oldest; section <= std::min(sections - 1, window); ++section)
      if (window - section < steps - 1)
        places[{section, window - section + 1}] = {call++, (section - oldest) * 3};
  }
  return [=](int64_t frame, int64_t draw, at::IntArrayRef shape) {
    if (draw == 0) return noise.narrow(2, frame, shape[2]);
    const auto &[row, first] = places.at({frame / 3, draw});
    return with_channels_first(draws[row].unsqueeze(0)).narrow(2, first, shape[2]);
  };
}

TEST_F(Causal, RollingForcing) {
  CausalConfig causal = self_forcing(21, 3);
  causal.memory = CausalMemory::kInFlight;
  causal.denoising_step_list = {1000, 800, 600, 400, 200};
  const at::Tensor expected = latents("rf");
  const int64_t sections = expected.size(2) / 3;
  const auto denoiser = make_section_denoiser(
      setup(causal), reference("text.0"),
      rolling_forcing_noise(latents("noise"), reference("rf.draws"), sections, causal.steps()), sections);
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < sections; ++i) out.push_back(denoiser->next(quiet(), [](int32_t) {}));
  expect_parity(at::cat(out, 2), expected, "rf", kLoopTolerance);
}

TEST_F(Causal, KreaComputesItsContextAnew) {
  CausalExpert expert(model_, config_, 9, kHeight, kWidth, /*keeps_unrotated=*/false, reference("text.1"));
  RollingWindow window(9, 0, FramePositions::kAbsolute);
  const at::Tensor noise = latents("noise");
  for (const int64_t start : {0, 3})
    expert.remember(noise.narrow(2, start, 3), window.begin(start, 3), quiet());
  const at::Tensor out = expert(noise.narrow(2, 6, 3), {937.5, 937.5, 937.5}, window.begin(6, 3), quiet());
  expect_parity(out, latents("krea.pass"), "krea.pass", kCallTolerance);
}

CausalConfig krea() {
  CausalConfig causal = self_forcing(6, 0);
  causal.memory = CausalMemory::kRebuilt;
  causal.denoising_step_list = {1000, 750, 500, 250, 0};
  return causal;
}

TEST_F(Causal, KreaSeesTheFirstFrameAndTheLastOnes) {
  expect_rollout("krea.first_frame", krea(), 4);
}

TEST_F(Causal, KreaSeesWhatStandsForTheFirstFrame) {
  BeforeSection before;
  for (const int64_t section : {1, 2, 3, 4})
    before[3 * section] = [this, section](SectionDenoiser &denoiser) {
      denoiser.set_anchor(latents("krea.given").narrow(2, section, 1));
    };
  expect_rollout("krea.anchors", krea(), 4, before);
}

void Causal::expect_two_experts(bool shared) {
  CausalConfig causal = self_forcing(21, 0);
  causal.first_block = 1;
  causal.denoising_step_list = {1000, 850, 700, 550, 350, 275, 200, 125};
  causal.flow_shift = 12;
  causal.boundary_ratio = 0.875;
  causal.shared_text_kv = shared;
  const std::string name = shared ? "a14b.shared" : "a14b";
  const at::Tensor noise = latents("noise"), expected = latents(name);
  const auto denoiser = make_section_denoiser(
      setup(causal), reference("text.0"), [&](int64_t frame, int64_t draw, at::IntArrayRef shape) {
        if (draw == 0) return noise.narrow(2, frame, shape[2]);
        return with_channels_first(reference("a14b.draws." + std::to_string(frame))[draw - 1]);
      });
  std::vector<at::Tensor> out;
  for (int i = 0; i < 3; ++i) out.push_back(denoiser->next(quiet(), [](int32_t) {}));
  expect_parity(at::cat(out, 2), expected, name, kLoopTolerance);
}

TEST_F(Causal, TwoExpertsWithACacheEach) {
  for (const bool shared : {false, true}) expect_two_experts(shared);
}

}  // namespace
}  // namespace wan::test
