// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The memory modes: blocks that come and go give the same results bit for bit, on the CPU, too, where copies
// are made between host tensors; which mode is chosen; and what too little memory says.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/random_weights.h"
#include "common/allocated_bytes.h"
#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "device.h"
#include "pipeline/memory_mode.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

std::vector<at::Tensor> tensors_of(const WanTransformerBlock &block) {
  std::vector<at::Tensor> tensors;
  const_cast<WanTransformerBlock &>(block).for_each_tensor(
      [&](const at::Tensor &tensor) { tensors.push_back(tensor); });
  return tensors;
}

/// The embedded model's first expert, block by block.
class Blocks : public testing::Test {
 protected:
  WanTransformerBlock block(int64_t i) {
    return {tiny_config().transformer, weights_ / "blocks" / i, WAN_QUANTIZATION_NONE};
  }
  std::shared_ptr<BlockSlots> slots(size_t count) const {
    return std::make_shared<BlockSlots>(test_device(), count);
  }
  static const WanTransformerBlock &use(BlockStore &store, size_t i) {
    return store.use<WanTransformerBlock>(i);
  }
  static void expect_equal(const WanTransformerBlock &out, const WanTransformerBlock &expected) {
    const std::vector<at::Tensor> a = tensors_of(out), b = tensors_of(expected);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i) {
      ASSERT_EQ(a[i].defined(), b[i].defined()) << i;
      if (!b[i].defined()) continue;
      EXPECT_EQ(a[i].strides(), b[i].strides()) << i;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(a[i].const_data_ptr()) % (test_device().is_cpu() ? 64 : 256), 0u);
      EXPECT_TRUE(at::equal(a[i], b[i])) << i;
    }
  }

  const c10::InferenceMode inference_;
  const int64_t count_ = tiny_config().transformer.num_layers;
  CheckpointWeights source_{
      {tiny_config().directory / "transformer", "diffusion_pytorch_model"}, test_device(), [](uint64_t) {}};
  const Weights weights_{source_, at::kFloat, WanTransformer3DModel::kKeepInFp32};
};

TEST_F(Blocks, HaveTheirWeightsWhenTheirTurnComes) {
  for (const size_t num_slots : {size_t{1}, size_t{2}, size_t{3}, static_cast<size_t>(count_)}) {
    BlockStore resident(nullptr), store(slots(num_slots));
    for (int64_t i = 0; i < count_; ++i) {
      resident.add(block(i));
      store.add(block(i));
    }
    for (int round = 0; round < 3; ++round)
      for (size_t i = 0; i < store.size(); ++i) {
        expect_equal(use(store, i), use(resident, i));
        store.done(i, store);
      }
    // Steps may leave blocks out.
    for (const size_t i : {size_t{0}, store.size() - 1, size_t{0}, size_t{1}}) {
      expect_equal(use(store, i), use(resident, i));
      store.done(i, store);
    }
  }
}

TEST_F(Blocks, ArePackedWhateverTheyHold) {
  // As quantized weights have it: an 8-bit matrix laid out by columns, a scale without dimensions, no bias.
  const auto unusual = [&] {
    WanTransformerBlock block = this->block(0);
    int index = 0;
    block.for_each_tensor([&](at::Tensor &tensor) {
      if (tensor.dim() == 2) tensor = tensor.to(at::kFloat8_e4m3fn).t();
      if (tensor.dim() == 1 && ++index % 2) tensor = index % 4 == 1 ? at::Tensor() : tensor[0].clone();
    });
    return block;
  };
  BlockStore resident(nullptr), store(slots(1));
  for (int i = 0; i < 2; ++i) {
    resident.add(unusual());
    store.add(unusual());
  }
  for (const size_t i : {size_t{0}, size_t{1}, size_t{0}}) {
    const std::vector<at::Tensor> a = tensors_of(use(store, i)), b = tensors_of(use(resident, i));
    for (size_t k = 0; k < b.size(); ++k) {
      ASSERT_EQ(a[k].defined(), b[k].defined());
      if (!b[k].defined()) continue;
      EXPECT_EQ(a[k].strides(), b[k].strides());
      EXPECT_EQ(a[k].scalar_type(), b[k].scalar_type());
      EXPECT_TRUE(at::equal(a[k].to(at::kFloat), b[k].to(at::kFloat)));
    }
    store.done(i, store);
  }
}

TEST_F(Blocks, RanksCopyFromTheSameHostMemory) {
  const auto arenas = std::make_shared<HostArenas>();
  const auto of_rank = [&] { return std::make_shared<BlockSlots>(test_device(), 2, arenas); };
  const std::shared_ptr<BlockSlots> slots[] = {of_rank(), of_rank()};
  BlockStore resident(nullptr), first(slots[0]), second(slots[1]);
  const auto held = [] {
    return test_device().is_cpu() ? allocated_bytes() : memory_in_use(test_device()).pinned_bytes;
  };
  const auto growth = [&](BlockStore &store) {
    const uint64_t before = held();
    for (int64_t i = 0; i < count_; ++i) store.add(block(i));
    return held() - before;
  };
  for (int64_t i = 0; i < count_; ++i) resident.add(block(i));
  const uint64_t of_first = growth(first), of_second = growth(second);
  EXPECT_LT(of_second + resident.bytes() / 2, of_first);
  for (const auto &of_one : slots) of_one->wait();
  for (int round = 0; round < 2; ++round)
    for (BlockStore *const store : {&first, &second})
      for (size_t i = 0; i < store->size(); ++i) {
        expect_equal(use(*store, i), use(resident, i));
        store->done(i, *store);
      }
}

TEST_F(Blocks, OnlyAsManyAreOnTheDeviceAsThereAreSlots) {
  BlockStore store(slots(2));
  for (int64_t i = 0; i < count_; ++i) store.add(block(i));
  for (size_t i = 0; i < store.size(); ++i) {
    const uint64_t one = [&] {
      uint64_t bytes = 0;
      for (const at::Tensor &tensor : tensors_of(use(store, i)))
        if (tensor.defined()) bytes += tensor.nbytes();
      return bytes;
    }();
    EXPECT_LE(store.bytes(), 2 * one);
    store.done(i, store);
  }
}

/// Both experts of the embedded model.
struct Experts {
  explicit Experts(const std::shared_ptr<BlockSlots> &slots)
      : high(load("transformer", slots)), low(load("transformer_2", slots)) {}

  static std::unique_ptr<WanTransformer3DModel> load(const std::string &component,
                                                     const std::shared_ptr<BlockSlots> &slots) {
    CheckpointWeights source({tiny_config().directory / component, "diffusion_pytorch_model"}, test_device(),
                             [](uint64_t) {});
    return std::make_unique<WanTransformer3DModel>(
        tiny_config().transformer, Weights(source, at::kFloat, WanTransformer3DModel::kKeepInFp32),
        WAN_QUANTIZATION_NONE, slots);
  }

  std::unique_ptr<WanTransformer3DModel> high, low;
};

at::Tensor forward(const WanTransformer3DModel &model, EncodedContext &text,
                   const RunContext &context = quiet(), const WanTransformer3DModel *next = nullptr) {
  const at::Tensor latents = at::arange(16 * 2 * 8 * 8, at::kFloat).sin().view({1, 16, 2, 8, 8});
  const RotaryEmbedding rotary = model.rotary(2, 8, 8);
  return model(latents.to(test_device()),
               {.rotary = rotary, .times = {{0, 500}}, .context = text, .run = context, .next = next});
}

at::Tensor forward(const WanTransformer3DModel &model, const RunContext &context = quiet(),
                   const WanTransformer3DModel *next = nullptr) {
  const int64_t dim = tiny_config().transformer.text_dim;
  EncodedContext text =
      model.encode(at::arange(512 * dim, at::kFloat).cos().view({1, 512, dim}).to(test_device()));
  const at::Tensor first = forward(model, text, context, next);
  EXPECT_TRUE(at::equal(first, forward(model, text, context, next))) << "with the keys and values kept";
  return first;
}

TEST(MemoryModes, ExpertsThatShareTheirSlotsGiveTheSameResults) {
  const c10::InferenceMode inference;
  const Experts resident(nullptr);
  const at::Tensor high = forward(*resident.high), low = forward(*resident.low);
  EXPECT_FALSE(at::equal(high, low));
  const auto layers = static_cast<size_t>(tiny_config().transformer.num_layers);
  for (const size_t count : {size_t{1}, size_t{2}, layers}) {
    const Experts shared(std::make_shared<BlockSlots>(test_device(), count));
    for (const bool announced : {false, true}) {
      const WanTransformer3DModel *const next_low = announced ? shared.low.get() : nullptr;
      const WanTransformer3DModel *const next_high = announced ? shared.high.get() : nullptr;
      EXPECT_TRUE(at::equal(forward(*shared.high, quiet(), next_low), high)) << count;
      EXPECT_TRUE(at::equal(forward(*shared.low, quiet(), next_low), low)) << count;
      EXPECT_TRUE(at::equal(forward(*shared.low, quiet(), next_high), low)) << count;
      EXPECT_TRUE(at::equal(forward(*shared.high, quiet(), next_high), high)) << count;
    }
  }
}

TEST(MemoryModes, ACancelledForwardLeavesTheBlocksUsable) {
  const c10::InferenceMode inference;
  const at::Tensor expected = forward(*Experts(nullptr).high);
  const auto layers = static_cast<size_t>(tiny_config().transformer.num_layers);
  for (const size_t count : {size_t{2}, layers})
    for (int checks = 0; checks < 4; ++checks) {
      const Experts experts(std::make_shared<BlockSlots>(test_device(), count));
      int left = checks;
      WanCallbacks callbacks{};
      callbacks.user = &left;
      callbacks.cancelled = [](void *user) { return (*static_cast<int *>(user))-- == 0; };
      EXPECT_THROW(forward(*experts.low, RunContext(callbacks), experts.high.get()), Error);
      EXPECT_TRUE(at::equal(forward(*experts.high), expected)) << count << " " << checks;
    }
}

TEST(MemoryModes, AnExpertOutlivesTheOther) {
  const c10::InferenceMode inference;
  Experts experts(std::make_shared<BlockSlots>(test_device(), 2));
  const at::Tensor expected = forward(*experts.low);
  experts.high.reset();
  EXPECT_TRUE(at::equal(forward(*experts.low), expected));
}

TEST(MemoryModes, TheFirstThatFitsIsChosen) {
  constexpr uint64_t kGb = 1'000'000'000;
  // A14B in bfloat16, with 24 GB for a video.
  const WeightBytes a14b = {56 * kGb, 28 * kGb, kGb, kGb, 11 * kGb, true};
  const auto choice = [&](uint64_t gpu, uint64_t host, WanMemoryMode wanted = WAN_MEMORY_AUTO) {
    return choose_memory_mode(wanted, a14b, 24 * kGb, gpu * kGb, host * kGb);
  };
  EXPECT_EQ(choice(84, 128), WAN_MEMORY_RESIDENT);
  EXPECT_EQ(choice(80, 128), WAN_MEMORY_ONE_EXPERT);
  EXPECT_EQ(choice(50, 128), WAN_MEMORY_STREAM);
  EXPECT_EQ(choice(12, 128), WAN_MEMORY_STREAM);
  EXPECT_EQ(choice(80, 32), WAN_MEMORY_RESIDENT) << "there is no host memory for another";
  EXPECT_EQ(choice(12, 128, WAN_MEMORY_RESIDENT), WAN_MEMORY_RESIDENT);
  EXPECT_EQ(choice(84, 128, WAN_MEMORY_STREAM), WAN_MEMORY_STREAM);
  WeightBytes on_two = a14b;
  on_two.splits = true;
  const auto choice_of_two = [&](uint64_t gpu, uint64_t host) {
    return choose_memory_mode(WAN_MEMORY_AUTO, on_two, 24 * kGb, gpu * kGb, host * kGb);
  };
  EXPECT_EQ(choice_of_two(80, 32), WAN_MEMORY_SPLIT);
  EXPECT_EQ(choice_of_two(80, 128), WAN_MEMORY_ONE_EXPERT) << "in which both devices always compute";
  EXPECT_EQ(choice_of_two(50, 32), WAN_MEMORY_RESIDENT) << "one expert leaves no room for a video";
  const WeightBytes one = {28 * kGb, 28 * kGb, kGb, kGb, 11 * kGb, false};
  EXPECT_EQ(choose_memory_mode(WAN_MEMORY_ONE_EXPERT, one, 24 * kGb, 84 * kGb, 128 * kGb),
            WAN_MEMORY_RESIDENT);
  EXPECT_EQ(choose_memory_mode(WAN_MEMORY_AUTO, one, 24 * kGb, 48 * kGb, 128 * kGb), WAN_MEMORY_STREAM);
}

TEST(MemoryModes, TheWeightsAreCountedWithoutReadingThem) {
  const WeightBytes bytes = WeightBytes::of(tiny_config(), at::kBFloat16, WAN_QUANTIZATION_NONE);
  uint64_t blocks = 0, other = 0;
  for (const std::string component : {"transformer", "transformer_2"}) {
    // The embedded model is stored in bfloat16; float32 islands take twice as much.
    const TensorFile file(tiny_config().directory / component / "diffusion_pytorch_model.safetensors");
    for (const auto &[name, entry] : file.tensors()) {
      const bool island = name.find("scale_shift_table") != std::string::npos ||
                          name.find("norm2") != std::string::npos ||
                          name.find("time_embedder") != std::string::npos;
      (name.starts_with("blocks.") ? blocks : other) += (entry.end - entry.begin) * (island ? 2 : 1);
    }
  }
  EXPECT_EQ(bytes.blocks, blocks);
  EXPECT_GT(bytes.other, other) << "with the VAE";
  EXPECT_EQ(bytes.expert, blocks / 2);
  EXPECT_EQ(bytes.block * static_cast<uint64_t>(tiny_config().transformer.num_layers), bytes.expert);
  EXPECT_GT(bytes.text_encoder, 0u);
  const WeightBytes alone = WeightBytes::of_experts(tiny_config(), at::kBFloat16, WAN_QUANTIZATION_NONE);
  EXPECT_EQ(alone.blocks, blocks);
  EXPECT_EQ(alone.other, other);
  EXPECT_EQ(alone.text_encoder, 0u);
  EXPECT_EQ(companion_bytes(tiny_config(), at::kBFloat16, at::kBFloat16),
            bytes.other - other + bytes.text_encoder);
}

TEST(MemoryModes, OneIsChosenForRandomWeightsWithoutFiles) {
  CheckpointConfig config = bench::released_config("Wan2.1-T2V-1.3B", 1);
  config.text_encoder = tiny_config().text_encoder;
  ASSERT_TRUE(config.files.empty());
  EXPECT_EQ(
      choose_memory_mode(WAN_MEMORY_AUTO, config, at::kBFloat16, WAN_QUANTIZATION_NONE, {test_device()}),
      WAN_MEMORY_RESIDENT);
}

TEST(MemoryModes, Fp8TakesHalfOfTheMatrices) {
  const auto of = [](WanQuantization quantization) {
    return WeightBytes::of(tiny_config(), at::kBFloat16, quantization);
  };
  const WeightBytes whole = of(WAN_QUANTIZATION_NONE), fp8 = of(WAN_QUANTIZATION_FP8);
  EXPECT_LT(fp8.blocks, whole.blocks * 6 / 10);
  EXPECT_GT(fp8.blocks, whole.blocks / 2);
  EXPECT_EQ(fp8.other, whole.other);
}

Model load_in_mode(WanMemoryMode mode, const WanCallbacks &callbacks = {}) {
  const std::string directory = tiny_model(), device = test_device_name();
  WanLoadOptions options{};
  options.model_dir = directory.c_str();
  options.device = device.c_str();
  options.memory = mode;
  return load_model(options, callbacks);
}

WanGenerateOptions small_clip() {
  WanGenerateOptions options = tiny_options();
  options.layout = packed_layout(WAN_PIXEL_RGB, 64, 32);
  options.num_frames = 5;
  options.steps = 4;  // two for each expert
  return options;
}

TEST(MemoryModes, AllGiveTheSameVideos) {
  const bool cpu = test_device_name() == "cpu";
  at::Tensor first, second;
  for (const WanMemoryMode mode :
       {WAN_MEMORY_RESIDENT, WAN_MEMORY_ONE_EXPERT, WAN_MEMORY_STREAM, WAN_MEMORY_AUTO}) {
    const Model model = load_in_mode(mode);
    WanMemory memory;
    api().memory(model.get(), &memory);
    EXPECT_EQ(memory.mode, cpu || mode == WAN_MEMORY_AUTO ? WAN_MEMORY_RESIDENT : mode);
    WanGenerateOptions options = small_clip();
    const at::Tensor video = generate_clip(model, options);
    options.seed = 43;
    options.guidance_scale = 1.0;
    const at::Tensor next = generate_clip(model, options);
    if (!first.defined()) {
      first = video;
      second = next;
    }
    EXPECT_TRUE(at::equal(video, first)) << mode;
    EXPECT_TRUE(at::equal(next, second)) << mode;
  }
}

TEST(MemoryModes, ACancelLeavesEverythingUsable) {
  at::Tensor expected;
  for (const WanMemoryMode mode : {WAN_MEMORY_RESIDENT, WAN_MEMORY_ONE_EXPERT, WAN_MEMORY_STREAM}) {
    int left = 0;
    WanCallbacks callbacks{};
    callbacks.user = &left;
    callbacks.cancelled = [](void *user) { return --*static_cast<int *>(user) == 0; };
    for (const int asked : {1, 50, 150}) {
      left = asked;
      try {
        load_in_mode(mode, callbacks);
        ADD_FAILURE() << "loaded";
      } catch (const Failure &failure) {
        EXPECT_EQ(failure.status, WAN_CANCELLED) << failure.message;
      }
    }
    const Model model = load_in_mode(mode);
    for (const int asked : {3, 8, 11, 25, 30}) {
      left = asked;
      Listener listener;
      listener.cancelled = [&] { return --left == 0; };
      try {
        generate_clip(model, small_clip(), listener);
        ADD_FAILURE() << "made";
      } catch (const Failure &failure) {
        EXPECT_EQ(failure.status, WAN_CANCELLED) << failure.message;
      }
    }
    const at::Tensor video = generate_clip(model, small_clip());
    if (!expected.defined()) expected = video;
    EXPECT_TRUE(at::equal(video, expected)) << mode;
  }
}

TEST(MemoryModes, WeightsThatDoNotFitAreRefusedWithFiguresAndAdvice) {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  const WeightBytes weights = {400 * kMiB, 200 * kMiB, 10 * kMiB, 50 * kMiB, 100 * kMiB, true};
  const auto refusal = [&](WanMemoryMode mode, at::Device device, uint64_t device_free, uint64_t host_free) {
    try {
      require_memory_for_weights(mode, weights, device, device_free * kMiB, host_free * kMiB,
                                 "dtype=bfloat16, ");
    } catch (const Error &error) {
      EXPECT_EQ(error.kind(), WAN_OUT_OF_MEMORY);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal(WAN_MEMORY_RESIDENT, at::kCPU, 550, 550), "");
  EXPECT_THAT(refusal(WAN_MEMORY_RESIDENT, at::kCPU, 549, 549),
              AllOf(HasSubstr("550 MiB"), HasSubstr("549 MiB are free"), HasSubstr("dtype=bfloat16")));
  EXPECT_EQ(refusal(WAN_MEMORY_ONE_EXPERT, at::kCUDA, 350, 5000), "");
  EXPECT_THAT(refusal(WAN_MEMORY_ONE_EXPERT, at::kCUDA, 349, 5000),
              AllOf(HasSubstr("GPU"), HasSubstr("350 MiB"),
                    HasSubstr("choose memory=stream, dtype=bfloat16, device=cpu, or a smaller model")));
  EXPECT_EQ(refusal(WAN_MEMORY_STREAM, at::kCUDA, 170, 5000), "");
  EXPECT_THAT(refusal(WAN_MEMORY_STREAM, at::kCUDA, 170, 1000),
              AllOf(HasSubstr("host"), HasSubstr("2448 MiB"), HasSubstr("1000 MiB are free")));
  // A mode that would be refused too is no advice.
  EXPECT_THAT(refusal(WAN_MEMORY_RESIDENT, at::kCUDA, 400, 1000), Not(HasSubstr("memory=")));
  EXPECT_THAT(refusal(WAN_MEMORY_STREAM, at::kCUDA, 400, 1000), Not(HasSubstr("memory=")));
  EXPECT_THAT(refusal(WAN_MEMORY_STREAM, at::kCUDA, 600, 1000), HasSubstr("memory=resident"));
  EXPECT_EQ(refusal(WAN_MEMORY_SPLIT, at::kCUDA, 350, 0), "");
  EXPECT_THAT(refusal(WAN_MEMORY_SPLIT, at::kCUDA, 349, 0),
              AllOf(HasSubstr("350 MiB"), Not(HasSubstr("memory="))));
}

TEST(MemoryModes, AModelBeyondTheHostsMemoryIsRefusedBeforeItIsRead) {
  // The embedded model that says it had A14B's size.
  const TemporaryDirectory directory;
  fs::copy(tiny_model(), directory.path(), fs::copy_options::recursive);
  for (const std::string expert : {"transformer", "transformer_2"}) {
    const fs::path path = directory.path() / expert / "config.json";
    auto config = nlohmann::json::parse(std::ifstream(path));
    config.update(
        {{"num_attention_heads", 40}, {"attention_head_dim", 128}, {"ffn_dim", 13824}, {"num_layers", 40}});
    fs::remove(path);
    std::ofstream(path) << config;
  }
  const uint64_t needed =
      WeightBytes::of(CheckpointConfig::read(directory.path()), at::kFloat, WAN_QUANTIZATION_NONE).blocks;
  if (needed < free_memory(at::kCPU)) GTEST_SKIP() << "this machine has " << (needed >> 30) << " GiB free";
  try {
    load_model(directory.path(), "cpu");
    ADD_FAILURE() << "loaded";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_OUT_OF_MEMORY) << failure.message;
    EXPECT_THAT(failure.message, AllOf(HasSubstr("MiB are free"), HasSubstr("dtype=bfloat16"),
                                       HasSubstr("quantization=fp8"), HasSubstr("a smaller model")));
  }
}

TEST(MemoryModes, TheTextEncoderLeavesTheGpuHoweverItsTurnEnds) {
  if (test_device_name() == "cpu") GTEST_SKIP() << "on the CPU it stays";
  const Model model = load_model(tiny_model(), test_device_name());
  const auto in_use = [&] {
    WanMemory memory;
    api().memory(model.get(), &memory);
    return memory.gpu_bytes;
  };
  const uint64_t loaded = in_use();
  WanGenerateOptions options = small_clip();
  Listener listener;
  bool stopped = false;
  listener.progress = [&](const WanProgress &progress) {
    stopped |= progress.stage == WAN_STAGE_TEXT && progress.step == 1;
  };
  listener.cancelled = [&] { return stopped; };
  EXPECT_THROW(generate(model, options, listener), Failure);
  // What stays is the first prompt's embedding.
  constexpr uint64_t kEmbedding = 1 << 20;
  EXPECT_LT(in_use(), loaded + kEmbedding);
  options.prompt = "another, so that it must be encoded";
  options.negative_prompt = "not \xff UTF-8";
  EXPECT_THROW(generate(model, options, {}), Failure);
  EXPECT_LT(in_use(), loaded + kEmbedding);
}

/// All memory of the GPU. LibTorch gives it back to CUDA in the end, which needs some for new kernels.
class Occupied {
 public:
  Occupied() {
    for (auto bytes = static_cast<int64_t>(free_memory(test_device())); bytes > 0;) {
      try {
        taken_.push_back(at::empty({bytes}, at::dtype(at::kByte).device(test_device())));
      } catch (const c10::OutOfMemoryError &) {
        bytes /= 2;
      }
    }
  }
  ~Occupied() {
    taken_.clear();
    at::getDeviceAllocator(test_device().type())->emptyCache();
  }

 private:
  std::vector<at::Tensor> taken_;
};

TEST(OutOfMemory, OfTheGpuNamesWhatToChangeAndPasses) {
  if (test_device_name() == "cpu") GTEST_SKIP() << "needs a GPU";
  const c10::InferenceMode inference;
  for (const WanMemoryMode mode : {WAN_MEMORY_RESIDENT, WAN_MEMORY_ONE_EXPERT, WAN_MEMORY_STREAM}) {
    const auto expect_advice = [&](const Failure &failure, const std::string &what) {
      EXPECT_EQ(failure.status, WAN_OUT_OF_MEMORY) << failure.message;
      EXPECT_THAT(failure.message, HasSubstr(what));
    };
    {
      const Occupied occupied;
      try {
        load_in_mode(mode);
        ADD_FAILURE() << "loaded";
      } catch (const Failure &failure) {
        expect_advice(failure, "a smaller model");
        EXPECT_THAT(failure.message, Not(HasSubstr("memory="))) << "no mode fits";
      }
    }
    const Model model = load_in_mode(mode);
    WanGenerateOptions options = tiny_options();
    options.steps = 2;
    {
      const Occupied occupied;
      try {
        generate_clip(model, options);
        ADD_FAILURE() << "made";
      } catch (const Failure &failure) {
        expect_advice(failure, "a smaller width");
        EXPECT_EQ(failure.message.find("memory=stream") != std::string::npos, mode != WAN_MEMORY_STREAM);
        EXPECT_EQ(failure.message.find("memory=one-expert") != std::string::npos,
                  mode == WAN_MEMORY_RESIDENT);
      }
    }
    EXPECT_EQ(generate_clip(model, options).size(0), options.num_frames);
  }
}

TEST(MostFrames, AreThoseThatDenoisingHasMemoryFor) {
  const CheckpointConfig &config = tiny_config();
  const auto needed = [&](int64_t latent_frames) {
    return denoise_bytes(config.transformer, at::kBFloat16, latent_frames, 96 / 8, 160 / 8, /*cached=*/true);
  };
  const auto most = [&](uint64_t bytes) {
    return most_frames(config, at::kBFloat16, 96, 160, /*cached=*/true, bytes);
  };
  EXPECT_EQ(most(needed(1) - 1), 0);
  EXPECT_EQ(most(needed(1)), 1);
  EXPECT_EQ(most(needed(9) - 1), 29);
  EXPECT_EQ(most(needed(9)), 33);
  EXPECT_EQ(most(UINT64_MAX / 2), (config.transformer.rope_max_seq_len - 1) * 4 + 1)
      << "the model takes no more";
  // 60 tokens are shared.
  const auto of_ranks = [&](int64_t ranks) {
    return denoise_bytes(config.transformer, at::kBFloat16, 1, 96 / 8, 160 / 8, /*cached=*/true, ranks);
  };
  EXPECT_EQ(of_ranks(4) * 4, needed(1));
  EXPECT_EQ(of_ranks(7) * 60 / 9, needed(1)) << "the first ranks have one token more";
  EXPECT_EQ(most_frames(config, at::kBFloat16, 96, 160, /*cached=*/true, needed(1), 2), 5);
}

/// The most that LibTorch's allocator hands out while `function` runs, beside what it has handed out before.
template <typename Function>
uint64_t measured_peak(Function function) {
  const at::Device device = test_device();
  synchronize(device);
  at::getDeviceAllocator(device.type())->resetPeakStats(device.index());
  const uint64_t before = memory_in_use(device).gpu_bytes;
  function();
  synchronize(device);
  return memory_in_use(device).gpu_peak_bytes - before;
}

void expect_within_a_tenth(uint64_t estimate, uint64_t measured, const std::string &what) {
  const double ratio = static_cast<double>(estimate) / static_cast<double>(measured);
  EXPECT_GE(ratio, 0.95) << what << ": " << estimate << " bytes are foreseen, " << measured << " were used";
  EXPECT_LE(ratio, 1.1) << what << ": " << estimate << " bytes are foreseen, " << measured << " were used";
}

TEST(MeasuredPeak, OfDenoisingIsWhatWasForeseen) {
  if (test_device().is_cpu()) GTEST_SKIP() << "needs a GPU";
  const c10::InferenceMode inference;
  for (const char *name : {"T2V-A14B", "TI2V-5B"}) {
    const TransformerConfig config = bench::released_config(name, /*layers=*/2).transformer;
    const auto source = bench::random_components()->open("transformer", test_device());
    const WanTransformer3DModel model(config,
                                      Weights(*source, at::kBFloat16, WanTransformer3DModel::kKeepInFp32));
    const at::Tensor latents = at::randn({1, config.in_channels, 9, 60, 104}, test_device());
    EncodedContext context = model.encode(at::randn({1, 512, config.text_dim}, test_device()), {});
    const auto forward = [&] {
      const RunContext unasked({});
      model(latents,
            {.rotary = model.rotary(9, 60, 104), .times = {{0, 900}}, .context = context, .run = unasked});
    };
    forward();  // makes the text's keys and values, and what the libraries keep
    expect_within_a_tenth(denoise_bytes(config, at::kBFloat16, 9, 60, 104, /*cached=*/false),
                          measured_peak(forward), name);
  }
}

TEST(MeasuredPeak, OfDecodingIsWhatWasForeseen) {
  if (test_device().is_cpu()) GTEST_SKIP() << "needs a GPU";
  const c10::InferenceMode inference;
  for (const char *name : {"T2V-A14B", "TI2V-5B"}) {
    const VaeConfig config = bench::released_config(name).vae;
    const auto source = bench::random_components()->open("vae", test_device());
    const AutoencoderKLWan vae(config, Weights(*source, at::kBFloat16));
    const at::Tensor latents = at::randn({1, config.z_dim, 4, 60, 104}, test_device());
    const auto decode = [&] {
      StreamState state;
      const RunContext unasked({});
      for (int64_t t = 0; t < latents.size(2); ++t) vae.decode(latents.narrow(2, t, 1), state, unasked);
    };
    decode();
    expect_within_a_tenth(vae.decode_bytes(60, 104), measured_peak(decode), name);
  }
}

TEST(Reading, AFileThatBecomesShorterIsAnError) {
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "model.safetensors";
  fs::copy(fs::path(tiny_model()) / "transformer/diffusion_pytorch_model.safetensors", path);
  const TensorFile file(path);
  fs::resize_file(path, fs::file_size(path) / 2);
  std::vector<std::byte> bytes(4096);
  file.read(0, bytes.size(), bytes.data());
  const auto last = std::max_element(file.tensors().begin(), file.tensors().end(), [](auto &a, auto &b) {
                      return a.second.end < b.second.end;
                    })->second;
  try {
    file.read(last.end - bytes.size(), bytes.size(), bytes.data());
    FAIL() << "read";
  } catch (const Error &failure) {
    EXPECT_EQ(failure.kind(), WAN_INVALID);
    EXPECT_THAT(failure.what(), AllOf(HasSubstr("model.safetensors"), HasSubstr("truncated")));
  }
}

TEST(Reading, AheadGivesTheSameTensorsInAnyOrder) {
  const c10::InferenceMode inference;
  const auto open = [] {
    return CheckpointWeights({tiny_config().directory / "transformer", "diffusion_pytorch_model"},
                             test_device(), [](uint64_t) {});
  };
  CheckpointWeights plain = open();
  const TensorFile file(tiny_config().directory / "transformer/diffusion_pytorch_model.safetensors");
  std::vector<WeightRequest> requests;
  for (const auto &[name, entry] : file.tensors()) requests.push_back({name, entry.shape, at::kFloat});
  for (const int order : {0, 1, 2}) {
    CheckpointWeights ahead = open();
    ahead.expect(requests);
    std::vector<WeightRequest> asked = requests;
    if (order == 1) std::reverse(asked.begin(), asked.end());
    if (order == 2) std::swap(asked[3], asked[9]);
    for (const WeightRequest &request : asked)
      EXPECT_TRUE(at::equal(ahead.load(request.name, request.shape, request.dtype),
                            plain.load(request.name, request.shape, request.dtype)))
          << request.name;
    ahead.check_all_loaded({});
  }
}

TEST(Reading, StopsWhereTheFileHasBecomeShorter) {
  const c10::InferenceMode inference;
  const TemporaryDirectory directory;
  const fs::path path = directory.path() / "diffusion_pytorch_model.safetensors";
  fs::copy(fs::path(tiny_model()) / "transformer/diffusion_pytorch_model.safetensors", path);
  CheckpointWeights weights({directory.path(), "diffusion_pytorch_model"}, test_device(), [](uint64_t) {});
  std::vector<WeightRequest> requests;
  const TensorFile file(path);
  for (const auto &[name, entry] : file.tensors()) requests.push_back({name, entry.shape, at::kFloat});
  fs::resize_file(path, fs::file_size(path) / 2);
  weights.expect(requests);
  EXPECT_THROW(for (const WeightRequest &request
                    : requests) weights.load(request.name, request.shape, request.dtype),
               Error);
}

}  // namespace
}  // namespace wan::test
