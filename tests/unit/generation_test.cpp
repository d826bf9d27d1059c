// Generations through the C interface: seeds, formats, cancellation at every stage, errors, and what follows
// them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "common/engine.h"
#include "common/reference.h"

namespace wan::test {
namespace {

using testing::HasSubstr;

/// A clip that takes a moment: 5 frames, 2 steps.
WanGenerateOptions small_clip(WanPixelFormat format = WAN_PIXEL_RGB) {
  WanGenerateOptions options = tiny_options(format);
  options.layout = packed_layout(format, 64, 32);
  options.num_frames = 5;
  options.steps = 2;
  return options;
}

class Generation : public testing::Test {
 protected:
  Failure failure_of(const WanGenerateOptions &options, const Listener &listener = {}) const {
    try {
      generate(model_, options, listener);
    } catch (const Failure &failure) {
      return failure;
    }
    return {WAN_OK, ""};
  }

  const Model model_ = load_model(tiny_model(), test_device_name());
};

TEST_F(Generation, ASeedGivesTheSameVideoAndAnotherSeedAnother) {
  WanGenerateOptions options = small_clip();
  const at::Tensor first = generate_clip(model_, options);
  EXPECT_EQ(first.size(0), 5);
  EXPECT_TRUE(at::equal(first, generate_clip(model_, options)));
  options.seed = 43;
  EXPECT_FALSE(at::equal(first, generate_clip(model_, options)));
}

TEST_F(Generation, TheSameVideoInTwoModelsAtATime) {
  const at::Tensor alone = generate_clip(model_, small_clip());
  const Model second = load_model(tiny_model(), test_device_name());
  at::Tensor beside;
  std::thread other([&] { beside = generate_clip(second, small_clip()); });
  EXPECT_TRUE(at::equal(alone, generate_clip(model_, small_clip())));
  other.join();
  EXPECT_TRUE(at::equal(alone, beside));
}

TEST_F(Generation, PromptNegativePromptAndGuidanceChangeTheVideo) {
  const at::Tensor base = generate_clip(model_, small_clip());
  WanGenerateOptions options = small_clip();
  options.prompt = "a green star";
  EXPECT_FALSE(at::equal(base, generate_clip(model_, options)));
  options = small_clip();
  options.negative_prompt = "blue";
  EXPECT_FALSE(at::equal(base, generate_clip(model_, options)));
  options = small_clip();
  options.guidance_scale = 1.0;
  EXPECT_FALSE(at::equal(base, generate_clip(model_, options)));
  options = small_clip();
  options.scheduler = WAN_SCHEDULER_EULER;
  EXPECT_FALSE(at::equal(base, generate_clip(model_, options)));
}

TEST_F(Generation, ChunksComeInOrderWithTheirIndices) {
  WanGenerateOptions options = small_clip(WAN_PIXEL_NV12);
  options.num_frames = 9;
  int32_t chunk = 0, frame = 0;
  Listener listener;
  listener.frames = [&](const WanFrames &frames) {
    EXPECT_EQ(frames.chunk, chunk++);
    EXPECT_EQ(frames.first_frame, frame);
    EXPECT_EQ(frames.num_frames, frame == 0 ? 1 : 4);
    EXPECT_EQ(frames.frame_size, options.layout.size);
    frame += frames.num_frames;
    return true;
  };
  generate(model_, options, listener);
  EXPECT_EQ(frame, 9);
}

TEST_F(Generation, OnlyTheFramesThatAreUsedAreDecoded) {
  WanGenerateOptions options = small_clip();
  options.num_frames = 13;
  const at::Tensor whole = generate_clip(model_, options);
  for (const int32_t used : {1, 4, 5, 7, 13}) {
    options.used_frames = used;
    std::vector<at::Tensor> chunks;
    int32_t frames = 0, decoded = 0;
    Listener listener;
    listener.frames = [&](const WanFrames &chunk) {
      EXPECT_EQ(chunk.first_frame, frames);
      frames += chunk.num_frames;
      chunks.push_back(pixels_of(chunk, options));
      return true;
    };
    listener.progress = [&](const WanProgress &progress) {
      if (progress.stage == WAN_STAGE_DECODE) decoded = progress.steps;
    };
    generate(model_, options, listener);
    EXPECT_TRUE(at::equal(at::cat(chunks), whole.narrow(0, 0, used))) << used;
    EXPECT_EQ(decoded, 1 + (used + 2) / 4) << "chunks beyond are not decoded";
  }
}

TEST_F(Generation, ProgressTellsEveryStage) {
  std::vector<std::pair<WanStage, int32_t>> heard;
  Listener listener;
  listener.progress = [&](const WanProgress &progress) { heard.emplace_back(progress.stage, progress.step); };
  generate(model_, small_clip(), listener);
  const std::vector<std::pair<WanStage, int32_t>> expected = {
      {WAN_STAGE_TEXT, 0},    {WAN_STAGE_TEXT, 1},    {WAN_STAGE_TEXT, 2},
      {WAN_STAGE_DENOISE, 0}, {WAN_STAGE_DENOISE, 1}, {WAN_STAGE_DENOISE, 2},
      {WAN_STAGE_DECODE, 0},  {WAN_STAGE_DECODE, 1},  {WAN_STAGE_DECODE, 2}};
  EXPECT_EQ(heard, expected);
}

TEST_F(Generation, ACancelAtAnyStageLeavesTheModelUsable) {
  const at::Tensor expected = generate_clip(model_, small_clip());
  for (const WanStage stage : {WAN_STAGE_TEXT, WAN_STAGE_DENOISE, WAN_STAGE_DECODE}) {
    std::atomic<bool> cancel = false;
    Listener listener;
    listener.progress = [&](const WanProgress &progress) { cancel = cancel || progress.stage == stage; };
    listener.cancelled = [&] { return cancel.load(); };
    WanGenerateOptions options = small_clip();
    options.prompt = stage == WAN_STAGE_TEXT ? "another prompt, so that it must be encoded" : options.prompt;
    EXPECT_EQ(failure_of(options, listener).status, WAN_CANCELLED) << stage;
    EXPECT_TRUE(at::equal(expected, generate_clip(model_, small_clip()))) << stage;
  }
}

TEST_F(Generation, AReceiverThatRefusesFramesStopsTheClip) {
  int received = 0;
  Listener listener;
  listener.frames = [&](const WanFrames &) { return ++received < 2; };
  WanGenerateOptions options = small_clip();
  options.num_frames = 33;
  EXPECT_EQ(failure_of(options, listener).status, WAN_CANCELLED);
  EXPECT_EQ(received, 2);
}

TEST_F(Generation, BadValuesAreNamed) {
  const auto refusal = [&](auto change) {
    WanGenerateOptions options = small_clip();
    change(options);
    const Failure failure = failure_of(options);
    EXPECT_EQ(failure.status, WAN_INVALID) << failure.message;
    return failure.message;
  };
  EXPECT_THAT(refusal([](auto &o) { o.layout.width = 40; }), HasSubstr("width 40 is not a multiple of 16"));
  EXPECT_THAT(refusal([](auto &o) { o.layout.height = 0; }), HasSubstr("height 0"));
  EXPECT_THAT(refusal([](auto &o) { o.num_frames = 4; }), HasSubstr("number of frames, 4,"));
  EXPECT_THAT(refusal([](auto &o) { o.num_frames = -3; }), HasSubstr("-3"));
  EXPECT_THAT(refusal([](auto &o) { o.used_frames = 6; }), HasSubstr("6, is not in 0 to the clip's 5"));
  EXPECT_THAT(refusal([](auto &o) { o.used_frames = -1; }), HasSubstr("-1, is not in 0 to the clip's 5"));
  EXPECT_THAT(refusal([](auto &o) { o.steps = 0; }), HasSubstr("steps=0"));
  EXPECT_THAT(refusal([](auto &o) { o.steps = 1001; }), HasSubstr("steps=1001"));
  EXPECT_THAT(refusal([](auto &o) { o.flow_shift = 0; }), HasSubstr("flow-shift"));
  EXPECT_THAT(refusal([](auto &o) { o.guidance_scale = NAN; }), HasSubstr("guidance-scale"));
  EXPECT_THAT(refusal([](auto &o) { o.prompt = "\xff\xfe"; }), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal([](auto &o) { o.layout = packed_layout(WAN_PIXEL_RGB, 32768, 16); }),
              HasSubstr("1024 at most"));
}

TEST_F(Generation, AVideoTooBigForTheMachineIsRefusedBeforeItStarts) {
  WanGenerateOptions options = small_clip();
  options.layout = packed_layout(WAN_PIXEL_NV12, 16384, 16384);
  options.num_frames = 401;  // in tiles, a GPU can decode a few
  const Failure failure = failure_of(options);
  EXPECT_EQ(failure.status, WAN_OUT_OF_MEMORY);
  EXPECT_THAT(failure.message, HasSubstr("16384x16384"));
  EXPECT_EQ(generate_clip(model_, small_clip()).size(0), 5);
}

}  // namespace
}  // namespace wan::test
