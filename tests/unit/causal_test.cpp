// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Endless videos: what is remembered of them, what a checkpoint says of itself, and sections through the C
// interface.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>

#include "common/allocated_bytes.h"
#include "common/causal_model.h"
#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "pipeline/section_denoiser.h"
#include "scheduler/section_sampler.h"

namespace wan::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<double> positions_of(const KeyPlan &plan) {
  std::vector<double> positions;
  for (const KeyPlan::Key &key : plan.keys) positions.push_back(key.position);
  return positions;
}

TEST(RollingWindow, KeepsTheSinkAndTheLastFrames) {
  RollingWindow window(9, 3, FramePositions::kAbsolute);
  for (int64_t start = 0; start < 30; start += 3) window.begin(start, 3);
  EXPECT_THAT(window.frames(), ElementsAre(0, 1, 2, 24, 25, 26, 27, 28, 29));
}

TEST(RollingWindow, WritesALaterPassOfASectionToTheSameSlots) {
  RollingWindow window(9, 3, FramePositions::kAbsolute);
  for (int64_t start = 0; start < 12; start += 3) window.begin(start, 3);
  const std::vector<int64_t> before = window.frames();
  const KeyPlan first = window.begin(12, 3), second = window.begin(12, 3);
  EXPECT_EQ(first.writes, second.writes);
  EXPECT_NE(before, window.frames());
  EXPECT_THAT(window.frames(), ElementsAre(0, 1, 2, 9, 10, 11, 12, 13, 14));
}

TEST(RollingWindow, TakesAFrameToItsPlaceOrToItsNumber) {
  RollingWindow relative(6, 2, FramePositions::kRelative), absolute(6, 2, FramePositions::kAbsolute);
  for (int64_t start = 0; start < 8; start += 2) {
    relative.begin(start, 2);
    absolute.begin(start, 2);
  }
  const KeyPlan places = relative.begin(8, 2), numbers = absolute.begin(8, 2);
  EXPECT_THAT(positions_of(places), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(places.positions, ElementsAre(4, 5));
  EXPECT_THAT(positions_of(numbers), ElementsAre(0, 1, 6, 7, 8, 9));
  EXPECT_THAT(numbers.positions, ElementsAre(8, 9));
}

TEST(RollingWindow, MovesWhatIsWrittenAfterACutForwardAndKeepsItPinned) {
  RollingWindow window(8, 2, FramePositions::kAbsolute);
  window.begin(0, 2);
  window.add_offset(8);
  EXPECT_THAT(window.begin(2, 2).positions, ElementsAre(10, 11));
  window.pin(2, 2);
  for (int64_t start = 4; start < 20; start += 2) window.begin(start, 2);
  EXPECT_THAT(window.frames(), ElementsAre(0, 1, 2, 3, 16, 17, 18, 19));
}

TEST(RollingWindow, ARecacheLeavesTheSinkAsItWasUnlessItBeginsThere) {
  RollingWindow window(6, 2, FramePositions::kAbsolute);
  window.begin(0, 2);
  EXPECT_THAT(window.recache(0, 2, false).writes, ElementsAre(0, 1));
  for (int64_t start = 2; start < 10; start += 2) window.begin(start, 2);
  // Of the last six frames, the first two have no slot: that of the sink is not theirs.
  const KeyPlan plan = window.recache(4, 6, false);
  EXPECT_EQ(std::ranges::count(plan.writes, KeyPlan::kNoSlot), 2);
  EXPECT_EQ(std::ranges::count(window.recache(4, 6, true).writes, KeyPlan::kNoSlot), 0);
  EXPECT_THAT(window.frames(), ElementsAre(4, 5, 6, 7, 8, 9));
}

TEST(RollingWindow, KeepsTheFirstFramesAfterThoseThatAreForgotten) {
  RollingWindow window(6, 2, FramePositions::kRelative);
  for (int64_t start = 0; start < 6; start += 2) window.begin(start, 2);
  window.forget_before(4);
  EXPECT_THAT(positions_of(window.begin(6, 2)), ElementsAre(0, 1, 2, 3));
  for (int64_t start = 8; start < 14; start += 2) window.begin(start, 2);
  EXPECT_THAT(window.frames(), ElementsAre(4, 5, 10, 11, 12, 13));
}

TEST(RollingForcingWindow, SeesTheFirstSectionRightBeforeTheOthers) {
  RollingForcingWindow window(3, 21, 24, 5);
  for (int64_t start = 0; start <= 30; start += 3) {
    window.begin(start, 15);
    window.finish(start);
  }
  const KeyPlan plan = window.begin(33, 15);
  EXPECT_EQ(plan.keys.size(), 21u);
  EXPECT_THAT(std::vector<double>(plan.keys.size(), 0).size(), 21u);
  std::vector<double> expected(21);
  std::iota(expected.begin(), expected.end(), 27);  // the anchor at 27, one section at 30, five from 33 on
  EXPECT_EQ(positions_of(plan), expected);
}

TEST(SectionSampler, HasTheTimestepsOfTheReleasedModels) {
  const auto timesteps = [](const char *preset) {
    return make_section_sampler(*CausalConfig::preset(preset))->timesteps();
  };
  const auto near = [](double value) { return testing::DoubleNear(value, 1e-3); };
  EXPECT_THAT(timesteps("self-forcing"), ElementsAre(1000, near(937.5), near(833.3333), near(625)));
  EXPECT_THAT(timesteps("longlive2"), ElementsAre(999, 937, 833, 624));
  EXPECT_THAT(timesteps("krea"), ElementsAre(1000, near(937.5), near(833.3333), near(625), 0));
  EXPECT_THAT(timesteps("causvid"), ElementsAre(1000, 757, 522));
  EXPECT_THAT(timesteps("rolling-forcing"),
              ElementsAre(1000, near(952.381), near(882.353), near(769.231), near(555.556)));
  EXPECT_NEAR(RenoiseTable(5).sigma(0), 0.00498008, 1e-7);
  EXPECT_NEAR(RenoiseTable(8).sigma(757), 0.7567567, 1e-6);
}

TEST(SectionNoise, DependsOnSeedPlaceAndDrawAlone) {
  const SectionNoise noise = seeded_noise(7, at::kCPU);
  const at::Tensor first = noise(3, 0, {2, 3});
  noise(6, 0, {2, 3});
  EXPECT_TRUE(at::equal(first, noise(3, 0, {2, 3})));
  EXPECT_FALSE(at::equal(first, noise(3, 1, {2, 3})));
  EXPECT_FALSE(at::equal(first, noise(4, 0, {2, 3})));
  EXPECT_FALSE(at::equal(first, seeded_noise(8, at::kCPU)(3, 0, {2, 3})));
  EXPECT_TRUE(at::equal(first, seeded_noise(7, at::kCPU, 6)(9, 0, {2, 3}))) << "counted from another origin";
}

/// Of the smallest sizes, so that thousands of frames take a moment.
class Rollout : public testing::Test {
 protected:
  static Json json() {
    Json json = causal_transformer_json();
    json.update({{"num_attention_heads", 1},
                 {"num_layers", 1},
                 {"ffn_dim", 16},
                 {"text_dim", 8},
                 {"in_channels", 4},
                 {"out_channels", 4}});
    return json;
  }
  std::unique_ptr<SectionDenoiser> denoiser(const CausalConfig &causal, uint64_t seed = 3) const {
    return make_section_denoiser({causal, config_, {model_}, 4, 2, 2}, text(1), seeded_noise(seed, at::kCPU));
  }
  static at::Tensor text(uint64_t seed) {
    return at::randn({1, 6, 8}, at::detail::createCPUGenerator(seed), at::dtype(at::kFloat));
  }
  static at::Tensor next(SectionDenoiser &denoiser) {
    return denoiser.next(quiet(), [](int32_t) {});
  }
  at::Tensor run(const CausalConfig &causal, int sections,
                 const std::map<int, std::function<void(SectionDenoiser &)>> &before = {},
                 uint64_t seed = 3) const {
    const auto denoiser = this->denoiser(causal, seed);
    std::vector<at::Tensor> out;
    for (int i = 0; i < sections; ++i) {
      if (const auto action = before.find(i); action != before.end()) action->second(*denoiser);
      out.push_back(next(*denoiser));
    }
    return at::cat(out, 2);
  }

  struct Source : WeightSource {
    const Tensors tensors = random_transformer(json());
    at::Tensor load(const std::string &name, at::IntArrayRef, at::ScalarType) override {
      return tensors.at(name);
    }
  };

  const c10::InferenceMode inference_;
  const std::string text_ = json().dump();
  const TransformerConfig config_ =
      TransformerConfig::parse(JsonFile(std::string_view(text_), "config.json"));
  Source source_;
  const WanTransformer3DModel model_{config_, Weights(source_, at::kFloat)};
};

TEST_F(Rollout, ASeedGivesTheSameVideoAndAnotherSeedAnother) {
  for (const char *preset : {"longlive", "longlive-infinity", "longlive2", "rolling-forcing", "krea"}) {
    const CausalConfig causal = *CausalConfig::preset(preset);
    const at::Tensor video = run(causal, 6);
    EXPECT_TRUE(video.isfinite().all().item<bool>()) << preset;
    EXPECT_TRUE(at::equal(video, run(causal, 6))) << preset;
    EXPECT_FALSE(at::equal(video, run(causal, 6, {}, 4))) << preset;
  }
}

TEST_F(Rollout, AChangedPromptChangesNothingBeforeIt) {
  const CausalConfig causal = *CausalConfig::preset("longlive");
  const at::Tensor video = run(causal, 7);
  for (const WanPromptSwitch how : {WAN_SWITCH_CROSS, WAN_SWITCH_RECACHE, WAN_SWITCH_CUT}) {
    const at::Tensor changed =
        run(causal, 7, {{5, [&](SectionDenoiser &denoiser) { denoiser.set_text(text(2), how); }}});
    EXPECT_TRUE(at::equal(video.narrow(2, 0, 15), changed.narrow(2, 0, 15))) << how;
    EXPECT_FALSE(at::equal(video.narrow(2, 15, 3), changed.narrow(2, 15, 3))) << how;
  }
  const at::Tensor same =
      run(causal, 7, {{5, [&](SectionDenoiser &denoiser) { denoiser.set_text(text(1), WAN_SWITCH_CROSS); }}});
  EXPECT_TRUE(at::equal(video, same));
}

TEST_F(Rollout, ACutForgetsAllBeforeIt) {
  const CausalConfig causal = *CausalConfig::preset("longlive");
  const auto cut = [](SectionDenoiser &denoiser) { denoiser.begin_scene({}); };
  const auto prompted_cut = [](SectionDenoiser &denoiser) {
    denoiser.set_text(text(2), WAN_SWITCH_CROSS);
    denoiser.begin_scene({});
    denoiser.set_text(text(1), WAN_SWITCH_CROSS);
  };
  const at::Tensor video = run(causal, 8, {{5, cut}});
  const at::Tensor other = run(
      causal, 8, {{2, [](SectionDenoiser &d) { d.set_text(text(2), WAN_SWITCH_CROSS); }}, {5, prompted_cut}});
  EXPECT_FALSE(at::equal(video.narrow(2, 6, 9), other.narrow(2, 6, 9)));
  EXPECT_TRUE(at::equal(video.narrow(2, 15, 9), other.narrow(2, 15, 9)));
}

TEST_F(Rollout, ASceneIsTheSameWhereverItStandsWhereItsFamilyForgets) {
  const auto scene = [&](const char *preset, const at::Tensor &image) {
    const CausalConfig causal = *CausalConfig::preset(preset);
    const auto begin = [&](SectionDenoiser &denoiser) {
      denoiser.set_text(text(2), WAN_SWITCH_CUT);
      denoiser.begin_scene(image);
      denoiser.set_noise(seeded_noise(9, at::kCPU));
    };
    const at::Tensor alone = run(causal, 6, {{0, begin}});
    const at::Tensor video =
        run(causal, 11, {{2, [](SectionDenoiser &d) { d.begin_scene({}); }}, {5, begin}});
    return at::equal(video.narrow(2, -alone.size(2), alone.size(2)), alone);
  };
  const at::Tensor image = at::randn({1, 4, 1, 2, 2}, at::detail::createCPUGenerator(5));
  for (const char *preset : {"self-forcing", "longlive", "longlive-infinity", "rolling-forcing", "krea"})
    EXPECT_TRUE(scene(preset, {})) << preset;
  for (const char *preset : {"causal-forcing-framewise", "longlive2"})
    EXPECT_TRUE(scene(preset, image)) << preset << " from a picture";
  EXPECT_FALSE(scene("longlive2", {})) << "which goes on with what it remembers";
}

TEST_F(Rollout, AVideoOfSomeLengthHasMoreSectionsWhereScenesBegin) {
  const CausalConfig causal = *CausalConfig::preset("rolling-forcing");
  const auto denoiser = make_section_denoiser({causal, config_, {model_}, 4, 2, 2}, text(1),
                                              seeded_noise(3, at::kCPU), /*sections=*/2);
  for (int scene = 0; scene < 3; ++scene) {
    for (int section = 0; section < 2; ++section) EXPECT_EQ(next(*denoiser).size(2), 3);
    denoiser->begin_scene({});
  }
}

TEST_F(Rollout, AWindowOverAllFramesSeesThemAtTheirPlacesOrNumbersAlike) {
  CausalConfig absolute = *CausalConfig::preset("self-forcing"), relative = absolute;
  relative.relative_positions = true;
  EXPECT_TRUE(at::equal(run(absolute, 7), run(relative, 7)));
}

TEST_F(Rollout, MemoryStaysFlatOver1500LatentFrames) {
  for (const bool relative : {false, true}) {
    CausalConfig causal = *CausalConfig::preset("longlive");
    causal.relative_positions = relative;
    causal.denoising_step_list = {1000, 500};
    const auto denoiser = this->denoiser(causal);
    size_t settled = 0;
    at::Tensor latents;
    for (int section = 0; section < 500; ++section) {
      if (section == 100) settled = allocated_bytes();
      if (section == 250) denoiser->set_text(text(2), WAN_SWITCH_RECACHE);
      latents = next(*denoiser);
    }
    EXPECT_TRUE(latents.isfinite().all().item<bool>());
    EXPECT_LT(allocated_bytes(), settled + (64 << 10));
  }
}

TEST(CausalConfig, GstWanJsonNamesAFamilyAndChangesIt) {
  const TemporaryDirectory directory;
  const CausalModel model(directory.path(), {{"causal",
                                              {{"preset", "longlive"},
                                               {"denoising_step_list", {1000, 500}},
                                               {"prompt_switch", "cross"},
                                               {"image_start", "alone"}}}});
  const CheckpointConfig config = CheckpointConfig::read(model.directory());
  ASSERT_TRUE(config.causal);
  EXPECT_EQ(config.causal->local_attn_size, 12);
  EXPECT_TRUE(config.causal->relative_positions);  // of its transformer's config.json
  EXPECT_EQ(config.defaults.steps, 2);
  EXPECT_EQ(config.defaults.prompt_switch, WAN_SWITCH_CROSS);
  EXPECT_EQ(config.defaults.pictures[WAN_PICTURE_FIRST], WAN_PICTURE_OPTIONAL);
  EXPECT_EQ(config.files.at("vae").directory.lexically_normal(), directory.path() / "wan-tiny" / "vae");
}

/// The sentence that a gst-wan.json is refused with.
std::string refusal_of(const Json &suggestions) {
  const TemporaryDirectory directory;
  const CausalModel model(directory.path(), suggestions);
  try {
    CheckpointConfig::read(model.directory());
  } catch (const Error &error) {
    return error.what();
  }
  return "accepted";
}

TEST(CausalConfig, WhatDoesNotFitTogetherIsRefused) {
  EXPECT_EQ(refusal_of({{"causal", "longlive"}}), "accepted");
  EXPECT_THAT(refusal_of({{"causal", "longlife"}}), HasSubstr("self-forcing, causal-forcing"));
  EXPECT_THAT(refusal_of({{"causal", 7}}), HasSubstr("must be a name"));
  EXPECT_THAT(refusal_of({{"causal", {{"sink", 3}}}}), HasSubstr("sink"));
  EXPECT_THAT(refusal_of({{"causal", {{"sink_size", 10}}}}), HasSubstr("do not fit a local_attn_size of 12"));
  EXPECT_THAT(refusal_of({{"causal", {{"denoising_step_list", {500, 1000}}}}}), HasSubstr("must fall"));
  EXPECT_THAT(refusal_of({{"causal", {{"denoising_step_list", Json::array()}}}}), HasSubstr("1 to 100"));
  EXPECT_THAT(refusal_of({{"causal", {{"boundary_ratio", 0.5}}}}), HasSubstr("two experts"));
  EXPECT_THAT(
      refusal_of({{"causal", {{"memory", "in-flight"}, {"image_start", "alone"}, {"local_attn_size", 21}}}}),
      HasSubstr("no pictures"));
  EXPECT_THAT(refusal_of({{"causal", {{"keep_first_frame", false}}}}), HasSubstr("memory rebuilt"));
  EXPECT_THAT(refusal_of({{"causal", {{"shared_text_kv", true}}}}), HasSubstr("two experts"));
  EXPECT_THAT(refusal_of({{"causal", {{"preset", "longlive2"}, {"recache_frames", 8}}}}),
              HasSubstr("recache_frames"));
  EXPECT_THAT(refusal_of({{"components", "/etc"}}), HasSubstr("../NAME"));
  EXPECT_THAT(refusal_of({{"components", "../../x"}}), HasSubstr("../NAME"));
}

class Endless : public testing::Test {
 protected:
  WanDefaults describe() const {
    WanDefaults defaults;
    WanError error;
    EXPECT_EQ(api().describe(directory().c_str(), &defaults, &error), WAN_OK) << error.message;
    return defaults;
  }
  WanGenerateOptions options(int32_t frames = 0) const {
    const WanDefaults defaults = describe();
    WanGenerateOptions options{};
    options.prompt = "a red circle";
    options.negative_prompt = "";
    options.seed = 42;
    options.num_frames = frames;
    options.steps = defaults.steps;
    options.guidance_scale = options.guidance_scale_2 = 1;
    options.flow_shift = defaults.flow_shift;
    options.layout = packed_layout(WAN_PIXEL_RGB, 48, 32);
    return options;
  }
  std::string directory() const { return files_.directory(); }
  std::string refusal(const WanGenerateOptions &options) const {
    WanError error;
    return api().check(directory().c_str(), &options, &error) == WAN_OK ? "accepted" : error.message;
  }

  const TemporaryDirectory temporary_;
  const CausalModel files_{temporary_.path(),
                           {{"causal", {{"preset", "longlive"}, {"image_start", "alone"}}}}};
  const Model model_ = load_model(files_.directory(), test_device_name(), WAN_DTYPE_FLOAT32);
};

TEST_F(Endless, DescribesItsSections) {
  const WanDefaults defaults = describe();
  EXPECT_TRUE(defaults.endless);
  EXPECT_EQ(defaults.num_frames, 0);
  EXPECT_EQ(defaults.first_section_frames, 9);
  EXPECT_EQ(defaults.section_frames, 12);
  EXPECT_EQ(defaults.section_latents, 3);
  EXPECT_EQ(defaults.prompt_switch, WAN_SWITCH_RECACHE);
  EXPECT_EQ(defaults.pictures[WAN_PICTURE_LAST], WAN_PICTURE_REFUSED);
  EXPECT_EQ(defaults.width, 48);
}

/// What came of a video: its frames, and how many each section has.
struct Video {
  at::Tensor frames;
  std::map<int32_t, int> sections;
};

Video make(const Model &model, const WanGenerateOptions &options, Listener listener) {
  Video video;
  std::vector<at::Tensor> chunks;
  int32_t frames = 0;
  listener.frames = [&](const WanFrames &chunk) {
    EXPECT_EQ(chunk.first_frame, frames);
    frames += chunk.num_frames;
    video.sections[chunk.section] += chunk.num_frames;
    chunks.push_back(pixels_of(chunk, options));
    return true;
  };
  generate(model, options, listener);
  video.frames = at::cat(chunks);
  return video;
}

TEST_F(Endless, MakesSectionsUntilItIsToldToStop) {
  Listener listener;
  std::vector<int32_t> asked, first_frames;
  listener.next_section = [&](WanSection &section) {
    asked.push_back(section.index);
    first_frames.push_back(section.first_frame);
    EXPECT_EQ(section.seed, 42u);
    return section.index < 3;
  };
  const Video video = make(model_, options(), listener);
  EXPECT_THAT(asked, ElementsAre(1, 2, 3));
  EXPECT_THAT(first_frames, ElementsAre(9, 21, 33));
  EXPECT_THAT(video.sections, testing::ElementsAre(std::pair(0, 9), std::pair(1, 12), std::pair(2, 12)));
}

TEST_F(Endless, EndsAfterTheFramesThatAreAskedFor) {
  const Video video = make(model_, options(17), {});
  EXPECT_THAT(video.sections, testing::ElementsAre(std::pair(0, 9), std::pair(1, 8)));
}

TEST_F(Endless, ANewPromptIsExactlyWhereItsSectionBegins) {
  Listener stays, changes;
  stays.next_section = [](WanSection &section) { return section.index < 4; };
  const at::Tensor video = make(model_, options(), stays).frames;
  for (const WanPromptSwitch how : {WAN_SWITCH_AUTO, WAN_SWITCH_CROSS, WAN_SWITCH_CUT}) {
    changes.next_section = [how](WanSection &section) {
      if (section.index == 2) section.prompt = "a green star on a pink background";
      if (section.index == 2) section.prompt_switch = how;
      return section.index < 4;
    };
    const at::Tensor changed = make(model_, options(), changes).frames;
    EXPECT_TRUE(at::equal(video.narrow(0, 0, 21), changed.narrow(0, 0, 21)));
    EXPECT_FALSE(at::equal(video.narrow(0, 21, 12), changed.narrow(0, 21, 12)));
  }
}

TEST_F(Endless, ASeedChangesFromItsSectionOn) {
  Listener stays, changes;
  stays.next_section = [](WanSection &section) { return section.index < 3; };
  changes.next_section = [](WanSection &section) {
    section.seed = 7;
    return section.index < 3;
  };
  const at::Tensor video = make(model_, options(), stays).frames,
                   changed = make(model_, options(), changes).frames;
  EXPECT_TRUE(at::equal(video.narrow(0, 0, 9), changed.narrow(0, 0, 9)));
  EXPECT_FALSE(at::equal(video.narrow(0, 9, 12), changed.narrow(0, 9, 12)));
}

TEST_F(Endless, BeginsFromAPictureAndTakesAnotherLater) {
  WanGenerateOptions options = this->options();
  options.pictures[WAN_PICTURE_FIRST] = true;
  int pictures = 0;
  Listener listener;
  listener.picture = [&](WanPictureKind) { return at::full({32, 48, 3}, 200 - 100 * pictures++, at::kByte); };
  listener.next_section = [](WanSection &section) {
    section.picture = section.index == 2;
    return section.index < 4;
  };
  const Video video = make(model_, options, listener);
  EXPECT_EQ(pictures, 2);
  EXPECT_THAT(video.sections,
              testing::ElementsAre(std::pair(0, 13), std::pair(1, 12), std::pair(2, 13), std::pair(3, 12)));
  // The first frame is the picture, as the VAE gives it back.
  EXPECT_NEAR(video.frames[0].to(at::kFloat).mean().item<double>(), 200, 30);
}

/// Three scenes of two sections each, of which the last is as the first.
Video make_scenes(const Model &model, const WanGenerateOptions &options) {
  Listener listener;
  listener.next_section = [&](WanSection &section) {
    if (section.index % 2 == 0) section.prompt_switch = WAN_SWITCH_CUT;
    if (section.index == 2) section.prompt = "a green star on a pink background";
    if (section.index == 2) section.seed = 7;
    if (section.index == 4) section.prompt = options.prompt;
    if (section.index == 4) section.seed = options.seed;
    return section.index < 6;
  };
  return make(model, options, listener);
}

void expect_the_first_scene_again(const Video &video) {
  for (const auto &[section, frames] : video.sections) EXPECT_EQ(frames, section % 2 ? 12 : 9);
  const auto scene = [&](int number) { return video.frames.narrow(0, 21 * number, 21); };
  EXPECT_TRUE(at::equal(scene(0), scene(2)));
  EXPECT_FALSE(at::equal(scene(0), scene(1)));
}

TEST_F(Endless, ASceneIsShownAgainBitForBit) {
  expect_the_first_scene_again(make_scenes(model_, options()));
}

TEST_F(Endless, ASceneOfAModelThatEncodesItsFramesIsShownAgainBitForBit) {
  Json transformer = causal_transformer_json();
  transformer["_class_name"] = "WanTransformer3DModel";
  const TemporaryDirectory temporary;
  const CausalModel files(temporary.path(), {{"causal", "krea"}}, transformer);
  WanGenerateOptions options = this->options();
  options.steps = 5;
  expect_the_first_scene_again(
      make_scenes(load_model(files.directory(), test_device_name(), WAN_DTYPE_FLOAT32), options));
}

TEST_F(Endless, ASectionIsDecodedWhileTheNextOneIsMade) {
  if (test_device().is_cuda()) GTEST_SKIP() << "on a GPU sections are decoded before the next one is made";
  std::mutex mutex;
  std::condition_variable changed;
  int32_t asked = 0;
  Listener listener;
  listener.next_section = [&](WanSection &section) {
    const std::lock_guard lock(mutex);
    asked = section.index;
    changed.notify_all();
    return section.index < 4;
  };
  listener.frames = [&](const WanFrames &chunk) {
    std::unique_lock lock(mutex);
    const bool begins_section = chunk.chunk % 3 == 0;
    EXPECT_TRUE(!begins_section || asked <= chunk.section + 1) << "no more than one section is ahead";
    return changed.wait_for(lock, std::chrono::minutes(1), [&] { return asked > chunk.section; });
  };
  generate(model_, options(), listener);
  EXPECT_EQ(asked, 4);
}

TEST_F(Endless, ASectionMayBeMadeFromAFrameOfTheOneBefore) {
  Json transformer = causal_transformer_json();
  transformer["_class_name"] = "WanTransformer3DModel";
  Listener listener;
  listener.next_section = [](WanSection &section) { return section.index < 4; };
  std::vector<at::Tensor> videos;
  for (const bool keeps : {true, false}) {
    const TemporaryDirectory temporary;
    const CausalModel files(temporary.path(), {{"causal", {{"preset", "krea"}, {"keep_first_frame", keeps}}}},
                            transformer);
    const Model model = load_model(files.directory(), test_device_name(), WAN_DTYPE_FLOAT32);
    WanGenerateOptions options = this->options();
    options.steps = 5;
    videos.push_back(make(model, options, listener).frames);
  }
  EXPECT_TRUE(at::equal(videos[0].narrow(0, 0, 21), videos[1].narrow(0, 0, 21))) << "two sections";
  EXPECT_FALSE(at::equal(videos[0].narrow(0, 21, 12), videos[1].narrow(0, 21, 12)));
}

TEST_F(Endless, ACancelStopsItInTheMidstOfASection) {
  Listener listener;
  int polls = 0;
  listener.cancelled = [&] { return ++polls > 40; };
  try {
    make(model_, options(), listener);
    FAIL() << "it did not stop";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_CANCELLED);
  }
  EXPECT_EQ(make(model_, options(9), {}).frames.size(0), 9);
}

TEST_F(Endless, FramesBeforeABadPromptStillCome) {
  Listener listener;
  int frames = 0;
  listener.next_section = [](WanSection &section) {
    section.prompt = "\xff is no UTF-8";
    return true;
  };
  listener.frames = [&](const WanFrames &chunk) {
    frames += chunk.num_frames;
    return true;
  };
  EXPECT_THROW(generate(model_, options(), listener), Failure);
  EXPECT_EQ(frames, 9);
}

TEST_F(Endless, WhatAClipHasAndItHasNotIsRefused) {
  WanGenerateOptions options = this->options();
  EXPECT_EQ(refusal(options), "accepted");
  options.num_frames = 10;
  EXPECT_THAT(refusal(options), HasSubstr("multiple of 4"));
  options = this->options();
  options.steps = 8;
  EXPECT_THAT(refusal(options), HasSubstr("its steps are fixed: leave steps=4"));
  options = this->options();
  options.guidance_scale = 5;
  EXPECT_THAT(refusal(options), HasSubstr("takes no guidance"));
  options = this->options();
  options.scheduler = WAN_SCHEDULER_EULER;
  EXPECT_THAT(refusal(options), HasSubstr("scheduler=auto"));
  options = this->options();
  options.cache = WAN_CACHE_FIRST_BLOCK;
  EXPECT_THAT(refusal(options), HasSubstr("cache=none"));
  options = this->options();
  options.continuity = WAN_CONTINUITY_LAST_FRAME;
  EXPECT_THAT(refusal(options), HasSubstr("continuity"));
  options = this->options();
  options.pictures[WAN_PICTURE_LAST] = true;
  EXPECT_THAT(refusal(options), HasSubstr("takes no last-image"));
}

}  // namespace
}  // namespace wan::test
