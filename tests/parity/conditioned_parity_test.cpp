// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Models that see pictures, from these to frames, against Diffusers' pipelines in float32:
// conditioned.safetensors of make_conditioned_reference.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cctype>
#include <optional>

#include "common/conditioned_models.h"
#include "common/engine.h"
#include "common/largest_error.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "output/frame_ring.h"
#include "pipeline/clip_pipeline.h"
#include "pipeline/denoiser.h"

namespace wan::test {
namespace {

constexpr double kCallTolerance = 1e-5, kLoopTolerance = 1e-4;

/// What make_conditioned_reference.py ran.
struct Run {
  std::string name;
  double guidance_scale, guidance_scale_2;

  std::string model() const { return name.substr(0, name.find('.')); }
};

class Conditioned : public testing::TestWithParam<Run>, protected LargestError {
 protected:
  at::Tensor reference(const std::string &name) const { return reference_[GetParam().name + "." + name]; }
  std::optional<at::Tensor> picture(WanPictureKind kind) const {
    const std::string name = kind == WAN_PICTURE_FIRST ? "image" : "last_image";
    const bool ends = GetParam().name.ends_with(".both"), begins = !GetParam().name.ends_with(".text");
    if (kind == WAN_PICTURE_FIRST ? !begins : !ends) return std::nullopt;
    return reference(name);
  }
  WanGenerateOptions options() const {
    WanGenerateOptions options = tiny_options();
    options.prompt = "a small red ring moving up";
    options.negative_prompt = "a green star";
    options.num_frames = 9;
    options.steps = 4;
    options.guidance_scale = GetParam().guidance_scale;
    options.guidance_scale_2 = GetParam().guidance_scale_2;
    options.flow_shift = config_.scheduler.flow_shift;
    options.layout = packed_layout(WAN_PIXEL_RGB, 96, 64);
    for (const WanPictureKind kind : {WAN_PICTURE_FIRST, WAN_PICTURE_LAST})
      options.pictures[kind] = picture(kind).has_value();
    return options;
  }
  std::unique_ptr<ComponentSource> source() const {
    return open_checkpoint(config_, {}, quiet(), [](uint64_t, uint64_t) {});
  }
  Placement placement() const { return {{test_device()}, at::kFloat}; }

  const c10::InferenceMode inference_;
  const Reference reference_{"tests/parity/conditioned.safetensors"};
  const TemporaryDirectory directory_;
  const ConditionedModel model_{GetParam().model(), directory_.path() / "model"};
  const CheckpointConfig config_ = CheckpointConfig::read(model_.directory());
};

TEST_P(Conditioned, WhatTheDenoiserIsGivenAndOneCall) {
  Components components(config_, source(), Tokenizer(config_.tokenizer), placement(), WAN_MEMORY_AUTO);
  const WanGenerateOptions options = this->options();
  const ClipPlan plan = plan_clip(components, options);
  ModelInputs inputs = {PromptEncoder(components)(options, /*keeps_encoder=*/false, quiet()), {}, {}, {}};
  const ClipEnds ends = {
      {picture(WAN_PICTURE_FIRST).value_or(at::Tensor()), picture(WAN_PICTURE_LAST).value_or(at::Tensor())},
      {}};
  Conditioning condition(components);
  condition(ends, options, plan, quiet(), inputs);
  if (options.pictures[WAN_PICTURE_FIRST])
    expect_parity(inputs.channels.defined() ? inputs.channels : inputs.clean_frame, reference("condition"),
                  "condition", kCallTolerance);
  if (config_.image_encoder) expect_parity(inputs.image, reference("image_embeds"), "CLIP", kCallTolerance);

  const at::Tensor expected_input = reference("step.0.input").to(test_device());
  const at::Tensor noise = expected_input.narrow(1, 0, config_.vae.z_dim);
  expect_parity(inputs.of(noise), expected_input, "input", kCallTolerance);
  const double timestep = reference("step.0.timestep").max().item<double>();
  const RotaryEmbedding rotary =
      components.experts().transformer().rotary(plan.frames, plan.height, plan.width);
  for (const auto &[text, branch] :
       {std::pair{inputs.text.prompt, "cond"}, {inputs.text.negative, "uncond"}}) {
    ExpertSession session(components.experts().transformer(), text, inputs.image, options);
    const auto times = inputs.times(timestep, rotary.cos.size(0), plan.frames);
    const at::Tensor out =
        session(expected_input, times, rotary, components.experts().transformer(), quiet());
    expect_parity(out, reference("step.0." + std::string(branch)), branch, kCallTolerance);
  }
}

TEST_P(Conditioned, EveryStepAndTheVideo) {
  ClipPipeline pipeline(config_, source(), Tokenizer(config_.tokenizer), placement(), WAN_MEMORY_AUTO);
  std::vector<at::Tensor> frames;
  const WanGenerateOptions options = this->options();
  Listener listener;
  listener.picture = [this](WanPictureKind kind) { return *picture(kind); };
  listener.frames = [&](const WanFrames &chunk) {
    frames.push_back(pixels_of(chunk, options));
    return true;
  };
  int step = 0;
  pipeline.generate(options, RunContext(callbacks_of(listener)), [&](const at::Tensor &latents) {
    const std::string name = "step." + std::to_string(step++) + ".latents";
    expect_parity(latents, reference(name), name, kLoopTolerance);
  });
  EXPECT_EQ(step, 4);
  const at::Tensor expected = reference("frames");
  const double quality = psnr(at::cat(frames).view(expected.sizes()), expected);
  std::cout << "PSNR " << quality << " dB\n";
  EXPECT_GE(quality, 60.0);
}

INSTANTIATE_TEST_SUITE_P(Models, Conditioned,
                         testing::Values(Run{"i2v-a14b.first", 3.5, 3.0}, Run{"i2v-a14b.both", 3.5, 3.0},
                                         Run{"ti2v-5b.text", 5.0, 5.0}, Run{"ti2v-5b.first", 5.0, 5.0},
                                         Run{"i2v-21.first", 5.0, 5.0}, Run{"flf2v-21.both", 5.5, 5.5}),
                         [](const auto &info) {
                           std::string name = info.param.name;
                           std::ranges::replace_if(
                               name, [](char c) { return !std::isalnum(c); }, '_');
                           return name;
                         });

TEST(KeysOfPictures, OfOnePromptServeTheOther) {
  const c10::InferenceMode inference;
  const TemporaryDirectory directory;
  const CheckpointConfig config =
      CheckpointConfig::read(ConditionedModel("i2v-21", directory.path() / "model").directory());
  const auto source = open_checkpoint(config, {}, quiet(), [](uint64_t, uint64_t) {});
  const auto weights = source->open("transformer", test_device());
  const WanTransformer3DModel transformer(config.transformer, Weights(*weights, at::kFloat));
  const at::Tensor text = at::randn({2, 512, config.transformer.text_dim}).to(test_device()),
                   image = at::randn({1, 5, *config.transformer.image_dim}).to(test_device()),
                   latents = at::randn({1, config.transformer.in_channels, 1, 4, 4}).to(test_device());
  const RotaryEmbedding rotary = transformer.rotary(1, 4, 4);
  const auto forward = [&](EncodedContext &context) {
    return transformer(latents, {.rotary = rotary, .times = {{0, 500}}, .context = context, .run = quiet()});
  };
  EncodedContext prompt = transformer.encode(text.narrow(0, 0, 1), image),
                 negative = transformer.encode(text.narrow(0, 1, 1), image),
                 sharing = transformer.encode(text.narrow(0, 1, 1));
  forward(prompt);
  sharing.share_pictures(prompt);
  EXPECT_TRUE(at::equal(forward(sharing), forward(negative)));
  EXPECT_TRUE(sharing.blocks[1].image.key.is_same(prompt.blocks[1].image.key)) << "they are there once";
}

TEST(CleanFrame, IsPutBackAfterTheLoop) {
  const Reference reference("tests/parity/conditioned.safetensors");
  const std::string run = "ti2v-5b.first.";
  ModelInputs inputs;
  inputs.clean_frame = reference[run + "condition"];
  const at::Tensor latents = inputs.with_clean_frame(reference[run + "step.3.latents"]);
  EXPECT_TRUE(at::equal(latents, reference[run + "latents"]));
}

}  // namespace
}  // namespace wan::test
