// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Several ranks make what one makes, and where one of them fails, all stop. On the CPU each is a thread; with
// WAN_TEST_DEVICE=cuda they have all GPUs of the machine.
#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <numeric>
#include <optional>

#include "common/causal_model.h"
#include "common/conditioned_models.h"
#include "common/dice.h"
#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "ops/attention.h"
#include "parallel/rank_threads.h"
#include "pipeline/clip_pipeline.h"
#include "pipeline/denoiser.h"
#include "pipeline/replicated_weights.h"
#include "pipeline/section_denoiser.h"

namespace wan::test {
namespace {

using testing::HasSubstr;

/// Of float32: GPUs add in an order that depends on the number of rows.
double tolerance() {
  return test_device().is_cpu() ? 1e-6 : 1e-5;
}

int64_t most_ranks() {
  return test_device().is_cpu() ? 4 : c10::impl::VirtualGuardImpl(at::kCUDA).deviceCount();
}

at::Device device_of(int64_t rank) {
  return test_device().is_cpu() ? at::Device(at::kCPU)
                                : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(rank));
}

std::vector<at::Device> devices(int64_t count) {
  std::vector<at::Device> devices;
  for (int64_t rank = 0; rank < count; ++rank) devices.push_back(device_of(rank));
  return devices;
}

/// As the property `device` has them.
std::string device_names(int64_t count) {
  std::string names = device_of(0).str();
  for (int64_t rank = 1; rank < count; ++rank)
    names += test_device().is_cpu() ? ",cpu" : "," + std::to_string(rank);
  return names;
}

at::Tensor part(const at::Tensor &x, int64_t dim, const Share &share) {
  return x.narrow(dim, share.first, share.count);
}

TEST(SequenceGroup, DividesWhatDoesNotDivide) {
  for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks) {
    const RankThreads threads(devices(ranks));
    for (const int64_t count : {5, 12, 13, 40}) {
      int64_t next = 0;
      for (const SequenceGroup &member : threads.group(0, ranks)) {
        const Share share = member.own_share(count);
        EXPECT_EQ(share.first, next);
        EXPECT_TRUE(share.count == count / ranks || share.count == count / ranks + 1);
        next += share.count;
      }
      EXPECT_EQ(next, count);
    }
  }
}

TEST(SequenceGroup, HandsTokensOverForHeadsAndBack) {
  const c10::InferenceMode inference;
  for (int64_t ranks = 1; ranks <= most_ranks(); ++ranks)
    for (const auto &[tokens, heads] : {std::pair<int64_t, int64_t>{8, 4}, {13, 5}, {4, 7}}) {
      RankThreads threads(devices(ranks));
      const auto members = threads.group(0, ranks);
      const at::Tensor query = at::randn({2, tokens, heads, 3}), value = at::randn({2, tokens, heads, 4});
      threads.run([&, tokens = tokens, heads = heads](int64_t rank) {
        const SequenceGroup &group = members[static_cast<size_t>(rank)];
        const Share own = group.own_share(tokens);
        const auto own_part = [&](const at::Tensor &x) { return part(x, 1, own).to(device_of(rank)); };
        Handover handover(group);
        const at::Tensor values = handover.to_heads(own_part(value), tokens);
        const at::Tensor queries = handover.to_heads(own_part(query), tokens);
        handover.wait();
        EXPECT_TRUE(at::equal(queries.cpu(), part(query, 2, group.own_share(heads))));
        EXPECT_TRUE(at::equal(values.cpu(), part(value, 2, group.own_share(heads))));
        EXPECT_TRUE(at::equal(group.to_tokens(values, heads).cpu(), part(value, 1, own)));
        const at::Tensor gathered = group.gather(own_part(query).flatten(2), tokens);
        ASSERT_EQ(gathered.defined(), rank == 0);
        if (rank > 0) return;
        EXPECT_TRUE(at::equal(gathered.cpu(), query.flatten(2)));
      });
    }
}

/// Two ranks at least, which may share a GPU: each computes on a stream of its own, and they take turns in
/// being slow to make what they hand over. Memory that is in use would be overwritten as soon as it is free.
TEST(SequenceGroup, WhatIsHandedOverComesAfterWhatMakesItAndBeforeWhatReadsIt) {
  const c10::InferenceMode inference;
  constexpr int64_t kTokens = 512, kHeads = 8, kDim = 64;
  const int64_t ranks = std::max<int64_t>(2, most_ranks());
  std::vector<at::Device> own_devices;
  for (int64_t rank = 0; rank < ranks; ++rank) own_devices.push_back(device_of(rank % most_ranks()));
  RankThreads threads(own_devices);
  const auto members = threads.group(0, ranks);
  const at::Tensor zeros = at::zeros({1, kTokens, kHeads, kDim});
  threads.run([&](int64_t rank) {
    const SequenceGroup &group = members[static_cast<size_t>(rank)];
    const at::Device device = own_devices[static_cast<size_t>(rank)];
    std::optional<c10::StreamGuard> stream;
    if (!device.is_cpu())
      stream.emplace(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device));
    const int64_t size = device.is_cpu() ? 8 : 4096;
    const at::Tensor slow = at::zeros({size, size}, device);
    const at::Tensor own = part(zeros, 1, group.own_share(kTokens)).to(device);
    const auto make = [&](int value) {
      at::Tensor made = own + value;
      if (value % ranks == rank)
        for (int i = 0; i < 10; ++i) made += slow.matmul(slow).sum();
      return made;
    };
    const auto overwrite = [&](const at::Tensor &all) {
      at::full_like(all, -1);
      for (int64_t peer = 0; peer < ranks; ++peer) at::full_like(part(own, 2, group.share(kHeads, peer)), -1);
    };
    for (int first = 0; first < 60; first += 3) {
      Handover handover(group);
      std::vector<at::Tensor> all;
      for (int value = first; value < first + 3; ++value) {
        all.push_back(handover.to_heads(make(value), kTokens));
        overwrite(all.back());
      }
      handover.wait();
      overwrite(all.back());
      for (int value = first; value < first + 3; ++value) {
        const at::Tensor back = group.to_tokens(all[static_cast<size_t>(value - first)], kHeads);
        EXPECT_TRUE(at::equal(back.cpu(), own.cpu() + value));
      }
    }
  });
}

TEST(SequenceGroup, AMeanIsAlikeOnAllRanks) {
  const c10::InferenceMode inference;
  const int64_t ranks = most_ranks();
  RankThreads threads(devices(ranks));
  const auto members = threads.group(0, ranks);
  std::vector<at::Tensor> means(static_cast<size_t>(ranks));
  const at::Tensor values = at::randn({ranks, 100});
  threads.run([&](int64_t rank) {
    const auto index = static_cast<size_t>(rank);
    means[index] = members[index].mean(values[rank].to(device_of(rank))).cpu();
  });
  EXPECT_LE(relative_error(means[0], values.mean(0)), tolerance());
  for (const at::Tensor &mean : means) EXPECT_TRUE(at::equal(mean, means[0]));
}

TEST(RankThreads, WhatOneThrowsIsThrownAndNoneWaitsForIt) {
  const c10::InferenceMode inference;
  const int64_t ranks = most_ranks();
  RankThreads threads(devices(ranks));
  const auto members = threads.group(0, ranks);
  const auto meet = [&](int64_t rank) {
    members[static_cast<size_t>(rank)].mean(at::zeros({1}, device_of(rank)));
  };
  for (int64_t failing = 0; failing < ranks; ++failing) {
    const std::string message = "rank " + std::to_string(failing);
    const auto fail_once = [&] {
      threads.run([&](int64_t rank) {
        if (rank == failing) throw invalid(message);
        for (;;) meet(rank);
      });
    };
    EXPECT_THAT(fail_once, testing::ThrowsMessage<Error>(message));
  }
  std::atomic<int64_t> calls = 0;
  threads.run([&](int64_t rank) {
    meet(rank);
    ++calls;
  });
  EXPECT_EQ(calls, ranks);
}

TEST(RankThreads, ARankOutsideOfTheGroupHearsOfAFailureToo) {
  if (most_ranks() < 2) GTEST_SKIP() << "needs two devices";
  RankThreads threads(devices(2));
  const SequenceGroup alone = threads.group(0, 1).front();
  const auto fail = [&] {
    threads.run([&](int64_t rank) {
      if (rank == 1) throw invalid("failed");
      for (;;) alone.check();
    });
  };
  EXPECT_THROW(fail(), Error);
}

/// Ranks that exchange tensors of any size a few times, of which any may fail at any time.
TEST(RankThreads, StormsOfFailuresLeaveThemUsable) {
  const c10::InferenceMode inference;
  Dice dice(7);
  for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks) {
    RankThreads threads(devices(ranks));
    for (int round = 0; round < 100; ++round) {
      const auto members = threads.group(0, ranks);
      const int failing = dice.roll(2 * static_cast<int>(ranks)), when = dice.roll(6);
      const int64_t tokens = ranks + dice.roll(20), heads = ranks + dice.roll(5);
      const auto exchange = [&](int64_t rank) {
        const SequenceGroup &group = members[static_cast<size_t>(rank)];
        at::Tensor x = at::ones({1, group.own_share(tokens).count, heads, 2}, device_of(rank));
        for (int i = 0; i < 6; ++i) {
          if (rank == failing && i == when) throw invalid("storm");
          Handover handover(group);
          const at::Tensor all = handover.to_heads(x, tokens);
          handover.wait();
          x = group.to_tokens(all, heads);
        }
        EXPECT_EQ(x.sum().item<double>(), static_cast<double>(x.numel()));
      };
      if (failing < ranks) {
        EXPECT_THROW(threads.run(exchange), Error);
      } else {
        threads.run(exchange);
      }
    }
  }
}

TEST(ShareStep, HalvesGuidanceWhereTheRanksAreEven) {
  const auto shares = [](int64_t ranks, bool guided, int64_t heads = 40) {
    const RankSharing sharing = share_step(ranks, guided, heads, 1000);
    return std::pair(sharing.predictions, sharing.ranks);
  };
  using Pair = std::pair<int32_t, int32_t>;
  EXPECT_EQ(shares(1, true), Pair(1, 1));
  EXPECT_EQ(shares(2, true), Pair(2, 1));
  EXPECT_EQ(shares(3, true), Pair(1, 3));
  EXPECT_EQ(shares(8, true), Pair(2, 4));
  EXPECT_EQ(shares(8, false), Pair(1, 8));
  EXPECT_EQ(shares(8, false, 5), Pair(1, 5)) << "more ranks than heads";
}

TEST(SegmentsOf, ARankHasThoseThatItsTokensLieIn) {
  const std::vector<TimeSegment> times = {{0, 0.0}, {6, 500.0}, {9, 700.0}};
  const auto starts = [&](int64_t first, int64_t count) { return segments_of(times, {first, count}).starts; };
  EXPECT_EQ(segments_of(times, {0, 12}).first, 0);
  EXPECT_EQ(starts(0, 12), (std::vector<int64_t>{0, 6, 9}));
  EXPECT_EQ(starts(0, 6), (std::vector<int64_t>{0}));
  EXPECT_EQ(starts(4, 4), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(segments_of(times, {7, 5}).first, 1);
  EXPECT_EQ(starts(7, 5), (std::vector<int64_t>{0, 2}));
}

/// Random weights of a network, by name.
struct RandomWeights : WeightSource {
  RandomWeights(const Json &json, at::Device device) : tensors(random_transformer(json)), device(device) {}
  at::Tensor load(const std::string &name, at::IntArrayRef, at::ScalarType dtype) override {
    ++loaded;
    return tensors.at(name).to(device, dtype);
  }
  const Tensors tensors;
  const at::Device device;
  std::atomic<int64_t> loaded = 0;
};

/// A network with heads that do not divide.
class Network : public testing::Test {
 protected:
  static Json json() {
    Json json = causal_transformer_json();
    json.update({{"num_attention_heads", 5}, {"text_dim", 8}, {"in_channels", 4}, {"out_channels", 4}});
    return json;
  }
  /// Read once, by the first rank.
  Replicas load(RankThreads &threads, WanQuantization quantization = WAN_QUANTIZATION_NONE) const {
    RandomWeights source(json(), device_of(0));
    const auto members = threads.group(0, threads.count());
    std::vector<std::shared_ptr<const WanTransformer3DModel>> models(members.size());
    threads.run([&](int64_t rank) {
      const auto index = static_cast<size_t>(rank);
      ReplicatedWeights replicated(source, members[index]);
      models[index] = std::make_shared<const WanTransformer3DModel>(config_, Weights(replicated, at::kFloat),
                                                                    quantization);
    });
    EXPECT_EQ(source.loaded, std::ssize(source.tensors));
    return {threads, models};
  }
  static at::Tensor text(uint64_t seed) {
    return at::randn({1, 6, 8}, at::detail::createCPUGenerator(seed), at::dtype(at::kFloat));
  }

  const c10::InferenceMode inference_;
  const std::string text_ = json().dump();
  const TransformerConfig config_ =
      TransformerConfig::parse(JsonFile(std::string_view(text_), "config.json"));
};

TEST_F(Network, IsReadOnceAndIsOnTheDeviceOfEachRank) {
  for (const WanQuantization quantization : {WAN_QUANTIZATION_NONE, WAN_QUANTIZATION_FP8}) {
    RankThreads threads(devices(most_ranks()));
    const Replicas network = load(threads, quantization);
    for (int64_t rank = 0; rank < threads.count(); ++rank) {
      EXPECT_EQ(network[rank].device(), device_of(rank));
      EXPECT_EQ(network[rank].block_bytes(), network.front().block_bytes());
    }
  }
}

TEST_F(Network, SeveralRanksPredictWhatOneDoes) {
  const at::Tensor latents = at::randn({1, 4, 3, 10, 6});  // 45 tokens
  const std::vector<TimeSegment> times = {{0, 0.0}, {15, 700.0}};
  const auto predict = [&](int64_t ranks) {
    RankThreads threads(devices(ranks));
    const Replicas network = load(threads);
    const auto members = threads.group(0, ranks);
    const auto copies = network.spread(latents), texts = network.spread(text(1));
    at::Tensor velocity;
    threads.run([&](int64_t rank) {
      const auto index = static_cast<size_t>(rank);
      const RotaryEmbedding rotary = network[rank].rotary(3, 10, 6);
      EncodedContext context = network[rank].encode(texts[index]);
      const at::Tensor own = network[rank](
          copies[index],
          {.rotary = rotary, .times = times, .context = context, .run = quiet(), .group = members[index]});
      if (rank == 0) velocity = own;
    });
    return velocity.cpu();
  };
  const at::Tensor expected = predict(1);
  for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks)
    EXPECT_LE(relative_error(predict(ranks), expected), tolerance()) << ranks;
}

TEST_F(Network, ACausalVideoIsTheSameOnSeveralRanks) {
  const auto rollout = [&](const CausalConfig &causal, int64_t ranks) {
    RankThreads threads(devices(ranks));
    const auto denoiser = make_section_denoiser({causal, config_, {load(threads)}, 4, 6, 6}, text(1),
                                                seeded_noise(3, test_device()));
    std::vector<at::Tensor> sections;
    for (int i = 0; i < 6; ++i) {
      if (i == 3) denoiser->set_text(text(2), causal.prompt_switch);
      sections.push_back(denoiser->next(quiet(), [](int32_t) {}).cpu());
    }
    return at::cat(sections, 2);
  };
  for (const char *preset : {"self-forcing", "longlive", "longlive2", "rolling-forcing", "krea"}) {
    const CausalConfig causal = *CausalConfig::preset(preset);
    const at::Tensor expected = rollout(causal, 1);
    for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks)
      EXPECT_LE(relative_error(rollout(causal, ranks), expected), 10 * tolerance())
          << preset << " on " << ranks;
  }
}

/// The latents after each step of a clip.
/// In float32, or in bfloat16 where FP8 asks for it.
std::vector<at::Tensor> latents_of(const CheckpointConfig &config, int64_t ranks,
                                   const WanGenerateOptions &options, const Listener &listener,
                                   WanQuantization quantization = WAN_QUANTIZATION_NONE,
                                   WanMemoryMode memory = WAN_MEMORY_AUTO) {
  const at::ScalarType dtype = quantization == WAN_QUANTIZATION_FP8 ? at::kBFloat16 : at::kFloat;
  ClipPipeline pipeline(config, open_checkpoint(config, {}, quiet(), [](uint64_t, uint64_t) {}),
                        Tokenizer(config.tokenizer), {devices(ranks), dtype, quantization}, memory);
  std::vector<at::Tensor> steps;
  pipeline.generate(options, RunContext(callbacks_of(listener)),
                    [&](const at::Tensor &latents) { steps.push_back(latents.cpu().clone()); });
  return steps;
}

void expect_near(const std::vector<at::Tensor> &steps, const std::vector<at::Tensor> &expected,
                 double tolerance, const std::string &what) {
  ASSERT_EQ(steps.size(), expected.size()) << what;
  for (size_t i = 0; i < steps.size(); ++i)
    EXPECT_LE(relative_error(steps[i], expected[i]), tolerance) << what << ", step " << i;
}

/// Names of ConditionedModel.
class SeveralRanks : public testing::TestWithParam<const char *> {};

TEST_P(SeveralRanks, MakeTheClipThatOneMakes) {
  const c10::InferenceMode inference;
  const TemporaryDirectory directory;
  const ConditionedModel model(GetParam(), directory.path() / "model");
  const CheckpointConfig config = CheckpointConfig::read(model.directory());
  WanGenerateOptions options = tiny_options();
  options.num_frames = 9;
  options.used_frames = 1;
  options.steps = 2;
  options.layout = packed_layout(WAN_PIXEL_RGB, 96, 32);
  options.flow_shift = config.scheduler.flow_shift;
  options.pictures[WAN_PICTURE_FIRST] = true;
  options.pictures[WAN_PICTURE_LAST] = config.variant->last_picture == WAN_PICTURE_REQUIRED;
  const at::Tensor picture = at::randint(256, {32, 96, 3}, at::kByte);
  Listener listener;
  listener.picture = [&](WanPictureKind) { return picture; };
  for (const double guidance : {4.0, 1.0}) {
    options.guidance_scale = options.guidance_scale_2 = guidance;
    const auto expected = latents_of(config, 1, options, listener);
    for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks) {
      const auto steps = latents_of(config, ranks, options, listener);
      const bool exact = ranks == 2 && guidance > 1;  // each computes a whole prediction
      expect_near(steps, expected, exact ? 0 : 10 * tolerance(),
                  std::to_string(ranks) + " ranks, guidance " + std::to_string(guidance));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SeveralRanks, testing::Values("i2v-a14b", "ti2v-5b", "i2v-21", "flf2v-21"));

/// The embedded model, T2V with two experts.
class EmbeddedModel : public testing::Test {
 protected:
  EmbeddedModel() {
    options_.num_frames = 9;
    options_.used_frames = 1;
    options_.steps = 3;
    options_.layout = packed_layout(WAN_PIXEL_RGB, 80, 48);
  }
  std::vector<at::Tensor> latents(int64_t ranks, WanQuantization quantization = WAN_QUANTIZATION_NONE) const {
    return latents_of(tiny_config(), ranks, options_, {}, quantization);
  }

  const c10::InferenceMode inference_;
  WanGenerateOptions options_ = tiny_options();
};

TEST_F(EmbeddedModel, SeveralRanksMakeTheClipThatOneMakes) {
  const auto expected = latents(1);
  for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks)
    expect_near(latents(ranks), expected, ranks == 2 ? 0 : 10 * tolerance(), std::to_string(ranks));
}

TEST_F(EmbeddedModel, RanksDecideAlikeAboutTheStepCache) {
  options_.cache = WAN_CACHE_FIRST_BLOCK;
  options_.cache_threshold = 0.3;
  options_.steps = 6;
  const auto expected = latents(1);
  for (int64_t ranks = 2; ranks <= most_ranks(); ++ranks)
    expect_near(latents(ranks), expected, 10 * tolerance(), std::to_string(ranks));
}

TEST_F(EmbeddedModel, RanksRoundKeysToFp8FromOneCenter) {
  if (most_ranks() < 2) GTEST_SKIP() << "needs two devices";
  if (!has_fp8_attention(test_device(), 1280, 128)) GTEST_SKIP() << "needs Hopper GPUs";
  options_.layout = packed_layout(WAN_PIXEL_RGB, 320, 256);  // 2 x 320 tokens a frame: more than 1024 keys
  options_.num_frames = 13;
  options_.steps = 1;
  options_.guidance_scale = options_.guidance_scale_2 = 1;
  const auto expected = latents(1), one_in_fp8 = latents(1, WAN_QUANTIZATION_FP8);
  const double error = relative_error(one_in_fp8.back(), expected.back());
  EXPECT_GT(error, 0) << "FP8 is not what this test thinks it is";
  EXPECT_LE(relative_error(latents(2, WAN_QUANTIZATION_FP8).back(), expected.back()), 1.1 * error);
}

TEST_F(EmbeddedModel, RanksThatCopyFromTheSameHostMemoryMakeTheClipThatOneMakes) {
  if (most_ranks() < 2) GTEST_SKIP() << "needs two devices";
  const auto expected = latents(1);
  for (const WanMemoryMode mode : {WAN_MEMORY_ONE_EXPERT, WAN_MEMORY_STREAM})
    expect_near(latents_of(tiny_config(), 2, options_, {}, WAN_QUANTIZATION_NONE, mode), expected, 0,
                memory_mode_name(mode));
}

TEST_F(EmbeddedModel, ExpertsOnDevicesOfTheirOwnMakeTheClipThatOneMakes) {
  options_.steps = 4;  // two for each expert
  const auto expected = latents(1);
  for (int64_t ranks = 2; ranks <= most_ranks(); ranks += 2)
    expect_near(latents_of(tiny_config(), ranks, options_, {}, WAN_QUANTIZATION_NONE, WAN_MEMORY_SPLIT),
                expected, ranks <= 4 ? 0 : 10 * tolerance(), std::to_string(ranks));
}

TEST_F(EmbeddedModel, ExpertsAreOnlySplitWhereEachGetsAsManyDevices) {
  const auto refusal =
      testing::ThrowsMessage<Error>(HasSubstr("memory=split is for models with two experts"));
  const auto load = [](const CheckpointConfig &config, int64_t ranks) {
    choose_memory_mode(WAN_MEMORY_SPLIT, config, at::kFloat, WAN_QUANTIZATION_NONE, devices(ranks));
  };
  EXPECT_THAT([&] { load(tiny_config(), 1); }, refusal);
  if (most_ranks() < 2) GTEST_SKIP() << "needs two devices";
  load(tiny_config(), 2);
  CheckpointConfig one_expert = tiny_config();
  one_expert.transformer_2.reset();
  EXPECT_THAT([&] { load(one_expert, 2); }, refusal);
}

/// Through the C interface.
class Devices : public testing::Test {
 protected:
  static WanGenerateOptions clip() {
    WanGenerateOptions options = tiny_options();
    options.num_frames = 5;
    options.steps = 2;
    options.layout = packed_layout(WAN_PIXEL_RGB, 48, 32);
    return options;
  }
  static Model load(int64_t ranks) {
    return load_model(tiny_model(), device_names(ranks), WAN_DTYPE_FLOAT32);
  }
};

TEST_F(Devices, MakeTheSameVideoAgainAndAgain) {
  const Model one = load(1), all = load(most_ranks());
  const at::Tensor expected = generate_clip(one, clip()), video = generate_clip(all, clip());
  EXPECT_GE(psnr(video, expected), 60);
  EXPECT_TRUE(at::equal(generate_clip(all, clip()), video));
}

TEST_F(Devices, ACancelAtAnyMomentLeavesThemUsable) {
  const Model model = load(most_ranks());
  const at::Tensor expected = generate_clip(model, clip());
  Dice dice(3);
  cancel_clips(model, clip(), dice, 20, 100);
  EXPECT_TRUE(at::equal(generate_clip(model, clip()), expected));
}

TEST_F(Devices, TellHowTheyShareAClip) {
  const Model model = load(most_ranks());
  WanMemory memory;
  const auto product = [&] {
    api().memory(model.get(), &memory);
    return memory.guidance_devices * memory.sequence_devices;
  };
  EXPECT_EQ(product(), 1);
  EXPECT_THAT(memory.device, testing::StartsWith(device_names(most_ranks())));
  generate(model, clip(), {});
  EXPECT_GE(product(), std::min<int64_t>(2, most_ranks()));
  EXPECT_EQ(memory.guidance_devices, most_ranks() % 2 ? 1 : 2);
  EXPECT_LE(memory.sequence_devices, tiny_config().transformer.num_attention_heads);
}

TEST_F(Devices, ADecoderOnADeviceOfItsOwnMakesTheSameFrames) {
  const auto frames = [](std::optional<at::Device> vae_device) {
    ClipPipeline pipeline(tiny_config(),
                          open_checkpoint(tiny_config(), {}, quiet(), [](uint64_t, uint64_t) {}),
                          Tokenizer(tiny_config().tokenizer),
                          {devices(1), at::kFloat, WAN_QUANTIZATION_NONE, vae_device}, WAN_MEMORY_AUTO);
    std::vector<at::Tensor> frames;
    Listener listener;
    listener.frames = [&](const WanFrames &chunk) {
      frames.push_back(pixels_of(chunk, clip()));
      return true;
    };
    pipeline.generate(clip(), RunContext(callbacks_of(listener)));
    return at::cat(frames);
  };
  EXPECT_TRUE(at::equal(frames({}), frames(device_of(most_ranks() - 1))));
}

TEST_F(Devices, WhoseNamesMeanNothingAreRefused) {
  const auto refusal = [](const std::string &device) {
    try {
      load_model(tiny_model(), device);
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, WAN_INVALID) << failure.message;
      return failure.message;
    }
    return std::string("not refused");
  };
  EXPECT_THAT(refusal("cuda:0,0"), HasSubstr("'cuda:0,0' names cuda:0 twice"));
  EXPECT_THAT(refusal("cuda,cuda:1,cuda:0"), HasSubstr("names cuda:0 twice"));
  EXPECT_THAT(refusal("cuda:0,cpu"), HasSubstr("names GPUs and the CPU"));
  EXPECT_THAT(refusal("cpu,cuda:1"), HasSubstr("names GPUs and the CPU"));
  for (const char *name :
       {"", ",", "cpu,", "cpu,1", "0,1", "auto,cpu", "cuda:0,", "cuda:0,-1", "cuda:0, 1", "tpu"})
    EXPECT_THAT(refusal(name), HasSubstr("is not one of auto, cpu, cuda and cuda:N, or several")) << name;
}

}  // namespace
}  // namespace wan::test
