// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A system that starts no more threads (RLIMIT_NPROC, pids.max): an error wherever the engine starts some,
// and what was started has ended when it is told.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <thread>

#include "checkpoint/staged_reader.h"
#include "common/engine.h"
#include "common/tiny_model.h"
#include "output/frame_ring.h"
#include "parallel/rank_threads.h"
#include "threads.h"
#include "transformer/wan_transformer_3d.h"

namespace {
std::atomic<int> threads_left = 1 << 30;
}

/// The C library's, but that it refuses as the system does when no more threads are left. Root is above the
/// limits that the system has, so that they cannot be tried everywhere.
extern "C" int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                              void *argument) noexcept {
  static const auto real = reinterpret_cast<decltype(&pthread_create)>(dlsym(RTLD_NEXT, "pthread_create"));
  return threads_left-- > 0 ? real(thread, attributes, run, argument) : EAGAIN;
}

namespace wan::test {
namespace {

using testing::HasSubstr;

class Threads : public testing::Test {
 protected:
  ~Threads() override { threads_left = 1 << 30; }

  template <typename Function>
  static void expect_refusal(int allowed, Function function) {
    threads_left = allowed;
    try {
      function();
      ADD_FAILURE() << "started with " << allowed;
    } catch (const Error &error) {
      EXPECT_EQ(error.kind(), WAN_OUT_OF_MEMORY);
      EXPECT_THAT(error.what(), HasSubstr("no more threads"));
    }
    threads_left = 1 << 30;
  }

  const c10::InferenceMode inference_;
};

TEST_F(Threads, TheFrameRingSaysThatItHasNone) {
  WanCallbacks callbacks{};
  callbacks.frames = [](void *, WanFrames *frames) {
    free_frames(frames);
    return true;
  };
  const RunContext context(callbacks);
  const WanPixelLayout layout = packed_layout(WAN_PIXEL_RGB, 32, 16);
  const auto pool = std::make_shared<FramePool>(test_device());
  expect_refusal(0, [&] { FrameRing(layout, 4, FrameMemory::kHost, pool, context); });
  FrameRing ring(layout, 4, FrameMemory::kHost, pool, context);
  ring.push(at::zeros({1, 3, 4, 16, 32}).to(test_device()));
  ring.finish();
}

TEST_F(Threads, AReaderWithAPartOfItsThreadsEndsThem) {
  const TensorFile file(tiny_config().directory / "transformer/diffusion_pytorch_model.safetensors");
  std::vector<StagedReader::Range> ranges;
  for (const auto &[name, entry] : file.tensors()) ranges.push_back({&file, &entry});
  StagedReader(test_device(), ranges);  // the threads by which LibTorch locks its memory are there
  for (const int allowed : {0, 1, 5, 11})
    expect_refusal(allowed, [&] { StagedReader(test_device(), ranges); });
  StagedReader reader(test_device(), ranges);
  for (const StagedReader::Range &range : ranges)
    EXPECT_EQ(reader.read().numel(), static_cast<int64_t>(range.entry->end - range.entry->begin));
}

TEST_F(Threads, RanksWithAPartOfTheirThreadsEndThem) {
  for (const int allowed : {0, 1, 2})
    expect_refusal(allowed, [] { RankThreads(std::vector<at::Device>(4, at::Device(at::kCPU))); });
}

TEST_F(Threads, BlocksThatCannotBePackedSayWhy) {
  CheckpointWeights source({tiny_config().directory / "transformer", "diffusion_pytorch_model"},
                           test_device(), [](uint64_t) {});
  const Weights weights(source, at::kFloat, WanTransformer3DModel::kKeepInFp32);
  const auto load = [&] {
    return WanTransformer3DModel(tiny_config().transformer, weights, WAN_QUANTIZATION_NONE,
                                 std::make_shared<BlockSlots>(test_device(), 2));
  };
  at::zeros({1 << 20}).sin();  // LibTorch's own threads are there
  for (const int allowed : {0, 2}) expect_refusal(allowed, load);
}

TEST_F(Threads, AGenerationWithoutThemFailsAndTheNextOneDoesNot) {
  const Model model = load_model(tiny_model(), test_device_name());
  WanGenerateOptions options = tiny_options();
  options.layout = packed_layout(WAN_PIXEL_RGB, 64, 32);
  options.num_frames = 5;
  options.steps = 1;
  // In a thread of its own, for which LibTorch has not started others yet.
  std::thread([&] {
    threads_left = 0;
    try {
      generate(model, options, {});
      ADD_FAILURE() << "made";
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, WAN_OUT_OF_MEMORY) << failure.message;
      EXPECT_THAT(failure.message, HasSubstr("no more threads"));
    }
    threads_left = 1 << 30;
    EXPECT_EQ(generate_clip(model, options).size(0), 5);
  }).join();
}

}  // namespace
}  // namespace wan::test
