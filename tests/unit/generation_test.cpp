// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Generations through the C interface: seeds, formats, cancellation at every stage, errors, and what follows
// them.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "common/engine.h"
#include "common/reference.h"
#include "device.h"

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

TEST_F(Generation, Fp8GivesNearlyTheSameVideo) {
  const at::Device device = parse_device(test_device_name());
  if (device.is_cuda() && compute_capability(device) < 89) GTEST_SKIP() << "needs a GPU with FP8";
  WanGenerateOptions options = small_clip();
  options.layout = packed_layout(WAN_PIXEL_RGB, 448, 256);
  options.num_frames = 9;  // attention in FP8 begins at 1024 tokens
  const at::Tensor whole = generate_clip(model_, options).to(at::kFloat);
  const Model model = load_model(tiny_model(), test_device_name(), WAN_DTYPE_AUTO, {}, WAN_QUANTIZATION_FP8);
  const at::Tensor fp8 = generate_clip(model, options).to(at::kFloat);
  EXPECT_GT((fp8 - whole).abs().max().item<double>(), 0);
  EXPECT_LT((fp8 - whole).abs().mean().item<double>(), 0.2 * whole.std().item<double>());
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

TEST_F(Generation, FramesThatStayOnTheGpuAreTheSame) {
  if (test_device_name() == "cpu") GTEST_SKIP() << "needs a GPU";
  for (const WanPixelFormat format :
       {WAN_PIXEL_NV12, WAN_PIXEL_I420, WAN_PIXEL_RGB, WAN_PIXEL_RGBX, WAN_PIXEL_BGRX}) {
    WanGenerateOptions options = small_clip(format);
    options.num_frames = 13;
    const at::Tensor expected = generate_clip(model_, options);
    options.on_device = true;
    EXPECT_TRUE(at::equal(generate_clip(model_, options), expected)) << format;
  }
}

TEST_F(Generation, FramesCannotStayOnAGpuThatTheModelIsNotOn) {
  const Model model = load_model(tiny_model(), "cpu");
  WanGenerateOptions options = small_clip();
  options.on_device = true;
  try {
    generate(model, options, {});
    FAIL() << "made";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_INVALID);
    EXPECT_THAT(failure.message, HasSubstr("this model is on the CPU"));
  }
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
  EXPECT_THAT(refusal([](auto &o) {
                o.cache = WAN_CACHE_FIRST_BLOCK;
                o.cache_threshold = -0.5;
              }),
              HasSubstr("cache-threshold"));
  EXPECT_THAT(refusal([](auto &o) { o.guidance_scale = NAN; }), HasSubstr("guidance-scale"));
  EXPECT_THAT(refusal([](auto &o) { o.prompt = "\xff\xfe"; }), HasSubstr("UTF-8"));
  EXPECT_THAT(refusal([](auto &o) { o.layout = packed_layout(WAN_PIXEL_RGB, 32768, 16); }),
              HasSubstr("takes up to 16384"));
}

TEST_F(Generation, WhatIsRefusedIsRefusedWithoutWeightsToo) {
  WanError error;
  const auto checked = [&](auto change) {
    WanGenerateOptions options = small_clip();
    change(options);
    const WanStatus status = api().check(tiny_model().c_str(), &options, &error);
    EXPECT_EQ(failure_of(options).status, status) << error.message;
    return status == WAN_OK ? std::string("accepted") : std::string(error.message);
  };
  const std::string long_prompt((64 << 10) + 1, 'a');
  EXPECT_EQ(checked([](auto &) {}), "accepted");
  EXPECT_THAT(checked([](auto &o) { o.layout.width = -16; }), HasSubstr("width -16"));
  EXPECT_THAT(checked([](auto &o) { o.layout.stride[0] = 10; }),
              HasSubstr("plane 0 does not fit a frame of"));
  EXPECT_THAT(checked([](auto &o) { o.layout.size -= 1; }), HasSubstr("plane 0"));
  EXPECT_THAT(checked([](auto &o) {
                o.layout = packed_layout(WAN_PIXEL_I420, 64, 32);
                o.layout.offset[2] = SIZE_MAX;
              }),
              HasSubstr("plane 2"));
  EXPECT_THAT(checked([](auto &o) { o.layout.format = static_cast<WanPixelFormat>(9); }),
              HasSubstr("layout.format=9"));
  EXPECT_THAT(checked([](auto &o) { o.guidance_scale = 1e300; }),
              HasSubstr("guidance-scale=1e+300 is not in 0 to 100"));
  EXPECT_THAT(checked([](auto &o) { o.guidance_scale = -1; }), HasSubstr("guidance-scale=-1"));
  EXPECT_THAT(checked([](auto &o) { o.guidance_scale_2 = -0.5; }), HasSubstr("guidance-scale-2=-0.5"));
  EXPECT_THAT(checked([](auto &o) { o.guidance_scale_2 = INFINITY; }), HasSubstr("guidance-scale-2=inf"));
  EXPECT_THAT(checked([](auto &o) { o.flow_shift = 1e6; }),
              HasSubstr("flow-shift=1000000 is not in 0 to 100"));
  EXPECT_THAT(checked([](auto &o) { o.flow_shift = NAN; }), HasSubstr("flow-shift=nan"));
  EXPECT_THAT(checked([](auto &o) { o.cache_threshold = -1; }), HasSubstr("cache-threshold"));
  EXPECT_THAT(checked([](auto &o) { o.cache = static_cast<WanCache>(7); }), HasSubstr("cache=7"));
  EXPECT_THAT(checked([](auto &o) { o.scheduler = static_cast<WanScheduler>(7); }), HasSubstr("scheduler=7"));
  EXPECT_THAT(checked([&](auto &o) { o.prompt = long_prompt.c_str(); }),
              HasSubstr("The prompt is too long: it has 65537 bytes, and may have 65536"));
  EXPECT_THAT(checked([&](auto &o) { o.negative_prompt = "\xff"; }),
              HasSubstr("The negative prompt is not valid UTF-8"));
  const double sigma = 0.5;
  EXPECT_THAT(checked([&](auto &o) {
                o.sigmas = &sigma;
                o.num_sigmas = 1;
                o.steps = -3;
              }),
              HasSubstr("steps=-3"));
}

TEST_F(Generation, NoiseLevelsThatMeetAfterTheShiftAreRefused) {
  WanGenerateOptions options = small_clip();
  options.flow_shift = 1e-60;
  EXPECT_THAT(failure_of(options).message,
              HasSubstr("flow-shift=1e-60 leaves too few different noise levels for steps=2"));
  const auto refusal_of = [&](const std::vector<double> &sigmas, WanScheduler scheduler) {
    options = small_clip();
    options.scheduler = scheduler;
    options.sigmas = sigmas.data();
    options.num_sigmas = sigmas.size();
    options.flow_shift = 100;
    return failure_of(options).message;
  };
  for (const WanScheduler scheduler : {WAN_SCHEDULER_UNIPC, WAN_SCHEDULER_EULER}) {
    EXPECT_THAT(refusal_of({1, 1 - 1e-7}, scheduler), HasSubstr("sigmas must fall from step to step"));
    EXPECT_THAT(refusal_of({0.5, 1e-60}, scheduler),
                HasSubstr("sigmas: 1e-60 with this flow-shift is too near"));
    EXPECT_EQ(refusal_of({1, 0.5, 1e-6}, scheduler), "");
  }
}

TEST_F(Generation, BadSigmasAreNamed) {
  const auto refusal = [&](const std::vector<double> &sigmas) {
    WanGenerateOptions options = small_clip();
    options.sigmas = sigmas.data();
    options.num_sigmas = sigmas.size();
    const Failure failure = failure_of(options);
    EXPECT_EQ(failure.status, WAN_INVALID) << failure.message;
    return failure.message;
  };
  EXPECT_THAT(refusal({0.5, 0.75}),
              HasSubstr("sigmas must fall from step to step, and 0.75 comes after 0.5"));
  EXPECT_THAT(refusal({0.5, 0.5}), HasSubstr("0.5 comes after 0.5"));
  EXPECT_THAT(refusal({0.5, 0.5 - 1e-9}), HasSubstr("0.499999999 comes after 0.5"));
  EXPECT_THAT(refusal({1.5}), HasSubstr("sigmas: 1.5 is not above 0 and up to 1"));
  EXPECT_THAT(refusal({1, 0}), HasSubstr("sigmas: 0 is not"));
  EXPECT_THAT(refusal({1, -0.5}), HasSubstr("sigmas: -0.5 is not"));
  EXPECT_THAT(refusal({NAN}), HasSubstr("sigmas: nan is not"));
  EXPECT_THAT(refusal({INFINITY}), HasSubstr("sigmas: inf is not"));
  EXPECT_THAT(refusal(std::vector(1001, 0.5)), HasSubstr("sigmas has 1001 values, and may have 1 to 1000"));
  const double none = 0;  // an empty vector's data() may be NULL, which leaves sigmas to the scheduler
  WanGenerateOptions options = small_clip();
  options.sigmas = &none;
  EXPECT_THAT(failure_of(options).message, HasSubstr("sigmas has 0 values"));
}

TEST_F(Generation, SigmasStandForSteps) {
  WanGenerateOptions options = small_clip();
  options.steps = 2;
  const at::Tensor own = generate_clip(model_, options);
  const std::vector<double> sigmas = {1.0, 0.5005};  // what UniPC takes for two steps
  options.steps = 0;
  options.sigmas = sigmas.data();
  options.num_sigmas = sigmas.size();
  int32_t steps = 0;
  Listener listener;
  listener.progress = [&](const WanProgress &progress) {
    if (progress.stage == WAN_STAGE_DENOISE) steps = progress.steps;
  };
  EXPECT_TRUE(at::equal(generate_clip(model_, options, listener), own));
  EXPECT_EQ(steps, 2);
}

/// Prompts encoded for a clip, as its progress tells.
int32_t prompts_encoded(const Model &model, const WanGenerateOptions &options) {
  int32_t prompts = 0;
  Listener listener;
  listener.progress = [&](const WanProgress &progress) {
    if (progress.stage == WAN_STAGE_TEXT) prompts = progress.steps;
  };
  generate_clip(model, options, listener);
  return prompts;
}

TEST_F(Generation, TheFirstGuidanceScaleDecidesForBothExperts) {
  WanGenerateOptions options = small_clip();
  options.guidance_scale = options.guidance_scale_2 = 1;
  const at::Tensor unguided = generate_clip(model_, options);
  EXPECT_EQ(prompts_encoded(model_, options), 1) << "no negative prompt";
  options.guidance_scale_2 = 4;
  EXPECT_TRUE(at::equal(generate_clip(model_, options), unguided)) << "as in Diffusers";
  options.guidance_scale = 4;
  EXPECT_EQ(prompts_encoded(model_, options), 2);
}

TEST_F(Generation, AGuidanceScaleOf1IsThatOfThePromptAlone) {
  WanGenerateOptions options = small_clip();
  options.steps = 4;
  options.guidance_scale = 4;
  options.guidance_scale_2 = 1;
  // In bfloat16 the two predictions would be rounded on the way to the one.
  const Model model = load_model(tiny_model(), test_device_name(), WAN_DTYPE_FLOAT32);
  const at::Tensor skipped = generate_clip(model, options);
  options.guidance_scale_2 = 1 + 1e-7;  // the unguided prediction is made, and has no weight
  EXPECT_GT(psnr(generate_clip(model, options), skipped), 60);
}

TEST_F(Generation, ACacheShortensForwardsUpToItsThreshold) {
  WanGenerateOptions options = small_clip();
  options.steps = 8;
  const at::Tensor whole = generate_clip(model_, options);
  int32_t cached = 0;
  Listener listener;
  listener.progress = [&](const WanProgress &progress) { cached = std::max(cached, progress.cached); };
  options.cache = WAN_CACHE_FIRST_BLOCK;
  options.cache_threshold = 0;
  EXPECT_TRUE(at::equal(generate_clip(model_, options, listener), whole));
  EXPECT_EQ(cached, 0);
  options.cache_threshold = 0.3;
  const at::Tensor close = generate_clip(model_, options, listener);
  EXPECT_GT(cached, 0);
  EXPECT_FALSE(at::equal(close, whole));
  EXPECT_TRUE(at::equal(generate_clip(model_, options), close)) << "nothing is kept from clip to clip";
  options.cache_threshold = 1e9;
  generate_clip(model_, options, listener);
  EXPECT_EQ(cached, 2 * (options.steps - 2)) << "each expert computes its first forwards whole";
}

/// Clips of 13 frames, RGB, that fade over 3: what each is without a fade, and with one.
class Crossfades : public Generation {
 protected:
  static constexpr int32_t kFrames = 13, kFade = 3;

  static WanGenerateOptions clip(uint64_t seed, int32_t fade_frames = kFade) {
    WanGenerateOptions options = small_clip();
    options.num_frames = kFrames;
    options.seed = seed;
    options.fade_frames = fade_frames;
    return options;
  }
  at::Tensor unfaded(uint64_t seed) const { return generate_clip(model_, clip(seed, 0)); }
  at::Tensor faded(const WanGenerateOptions &options, bool followed) const {
    Listener listener;
    listener.followed = [followed] { return followed; };
    return generate_clip(model_, options, listener);
  }

  /// Bytes of `before` that turn into those of `after`.
  static at::Tensor mixed(const at::Tensor &before, const at::Tensor &after) {
    const int64_t frames = before.size(0);
    const at::Tensor share =
        (at::arange(1, frames + 1, at::kDouble) / static_cast<double>(frames + 1)).unsqueeze(1);
    return before.to(at::kDouble) * (1 - share) + after.to(at::kDouble) * share;
  }
  static double greatest_difference(const at::Tensor &a, const at::Tensor &b) {
    return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
  }
};

TEST_F(Crossfades, JoinClipAfterClip) {
  const std::vector<at::Tensor> plain = {unfaded(1), unfaded(2), unfaded(3)};
  for (size_t i = 0; i < 3; ++i) {
    const bool last = i == 2;
    const at::Tensor out = faded(clip(i + 1), !last);
    const int64_t end = last ? kFrames : kFrames - kFade, begin = i ? kFade : 0;
    ASSERT_EQ(out.size(0), end) << i;
    EXPECT_TRUE(at::equal(out.narrow(0, begin, end - begin), plain[i].narrow(0, begin, end - begin))) << i;
    if (i == 0) continue;
    const at::Tensor expected =
        mixed(plain[i - 1].narrow(0, kFrames - kFade, kFade), plain[i].narrow(0, 0, kFade));
    // The bytes of both clips were rounded, and so are those of the mixture.
    EXPECT_LE(greatest_difference(out.narrow(0, 0, kFade), expected), 1.001) << i;
    EXPECT_GT(greatest_difference(out.narrow(0, 0, kFade), plain[i].narrow(0, 0, kFade)), 2) << i;
  }
  EXPECT_TRUE(at::equal(faded(clip(1), false), plain[0])) << "the last clip kept nothing";
}

TEST_F(Crossfades, OfClipsThatAreUsedInPart) {
  WanGenerateOptions options = clip(1);
  options.used_frames = 7;
  const at::Tensor first = unfaded(1), second = unfaded(2);
  EXPECT_TRUE(at::equal(faded(options, true), first.narrow(0, 0, 4)));
  const at::Tensor expected = mixed(first.narrow(0, 4, kFade), second.narrow(0, 0, kFade));
  EXPECT_LE(greatest_difference(faded(clip(2), false).narrow(0, 0, kFade), expected), 1.001);
}

TEST_F(Crossfades, FramesAndChunksAreCountedAsTheyLeave) {
  faded(clip(1), true);
  int32_t frame = 0, chunk = 0, asked = 0;
  Listener listener;
  listener.frames = [&](const WanFrames &frames) {
    EXPECT_EQ(frames.first_frame, frame);
    EXPECT_EQ(frames.chunk, chunk++);
    frame += frames.num_frames;
    return true;
  };
  listener.followed = [&] { return ++asked > 0; };
  generate(model_, clip(2), listener);
  EXPECT_EQ(frame, kFrames - kFade);
  EXPECT_EQ(chunk, 4);
  EXPECT_EQ(asked, 1);
}

TEST_F(Crossfades, NobodyIsAskedForACut) {
  Listener listener;
  listener.followed = [] {
    ADD_FAILURE() << "asked";
    return true;
  };
  generate(model_, clip(1, 0), listener);
}

TEST_F(Crossfades, WhatComesBetweenDropsTheTail) {
  const at::Tensor plain = unfaded(2);
  const auto cancelled = [&](WanStage stage) {
    return [this, stage] {
      std::atomic<bool> cancel = false;
      Listener listener;
      listener.progress = [&](const WanProgress &progress) { cancel = cancel || progress.stage == stage; };
      listener.cancelled = [&] { return cancel.load(); };
      listener.followed = [] { return true; };
      EXPECT_EQ(failure_of(clip(3), listener).status, WAN_CANCELLED);
    };
  };
  const auto other = [&](auto change) {
    return [this, change] {
      WanGenerateOptions options = clip(3);
      change(options);
      failure_of(options);
    };
  };
  const std::pair<const char *, std::function<void()>> between[] = {
      {"a cancel before the frames", cancelled(WAN_STAGE_DENOISE)},
      {"a cancel among the frames", cancelled(WAN_STAGE_DECODE)},
      {"an error", other([](auto &o) { o.steps = 0; })},
      {"a cut", other([](auto &o) { o.fade_frames = 0; })},
      {"another size", other([](auto &o) { o.layout = packed_layout(WAN_PIXEL_RGB, 32, 64); })},
      {"another length", other([](auto &o) { o.fade_frames = 2; })},
  };
  for (const auto &[name, happens] : between) {
    faded(clip(1), true);
    happens();
    EXPECT_TRUE(at::equal(faded(clip(2), false), plain)) << name;
  }
}

TEST_F(Crossfades, ClipsOfAnotherStreamMayComeBetween) {
  const at::Tensor alone = unfaded(3).narrow(0, 0, kFrames - kFade);
  faded(clip(1), true);
  const at::Tensor joined = faded(clip(2), false);
  WanGenerateOptions other = clip(3);
  other.stream = 1;
  faded(clip(1), true);
  EXPECT_TRUE(at::equal(faded(other, true), alone)) << "it begins with a cut";
  EXPECT_TRUE(at::equal(faded(clip(2), false), joined));
}

TEST_F(Crossfades, BadLengthsAreNamed) {
  const auto refusal = [&](int32_t fade_frames, int32_t used_frames) {
    WanGenerateOptions options = clip(1, fade_frames);
    options.used_frames = used_frames;
    const Failure failure = failure_of(options);
    EXPECT_EQ(failure.status, WAN_INVALID) << failure.message;
    return failure.message;
  };
  EXPECT_THAT(refusal(7, 0), HasSubstr("7 frames does not fit a clip of 13: it may have 0 to 6"));
  EXPECT_THAT(refusal(3, 5), HasSubstr("3 frames does not fit a clip of 5: it may have 0 to 2"));
  EXPECT_THAT(refusal(-1, 0), HasSubstr("-1 frames"));
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
