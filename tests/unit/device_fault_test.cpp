// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A fault in a kernel takes the GPU from the whole process, and nothing else: the host application goes on.
// It has a program of its own, since the GPU is gone afterwards.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/engine.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

using Frames = std::unique_ptr<WanFrames, void (*)(WanFrames *)>;

/// Lets a kernel read beyond its tensor, which it asserts not to do.
void provoke_fault() {
  const at::Tensor numbers = at::zeros({4}, at::dtype(at::kFloat).device(test_device()));
  const at::Tensor index = at::full({1}, 1'000'000, at::dtype(at::kLong).device(test_device()));
  at::index_select(numbers, 0, index);
}

class Fault : public testing::Test {
 protected:
  void SetUp() override {
    if (test_device_name() == "cpu") GTEST_SKIP() << "needs a GPU";
  }

  /// Generates while the receiver keeps all chunks; the second chunk that comes breaks the GPU in `stage`.
  Failure generate(WanModel *model, std::optional<WanStage> fault_in) {
    WanGenerateOptions options = tiny_options();
    options.steps = 4;
    struct User {
      std::vector<Frames> &kept;
      std::optional<WanStage> fault_in;
    } user{kept_, fault_in};
    WanCallbacks callbacks{};
    callbacks.user = &user;
    callbacks.progress = [](void *user, const WanProgress *progress) {
      if (progress->stage == static_cast<User *>(user)->fault_in && progress->step == 2) provoke_fault();
    };
    callbacks.frames = [](void *user, WanFrames *frames) {
      static_cast<User *>(user)->kept.emplace_back(frames, api().frames_free);
      return true;
    };
    WanError error{};
    const WanStatus status = api().generate(model, &options, &callbacks, &error);
    return {status, error.message};
  }

  std::vector<Frames> kept_;
};

/// Both the sentence and the kind.
void expect_device_failure(const Failure &failure) {
  EXPECT_EQ(failure.status, WAN_DEVICE) << failure.message;
  EXPECT_THAT(failure.message,
              AllOf(HasSubstr("cuda:0"), HasSubstr("has failed"), HasSubstr("restart the application")));
}

TEST_F(Fault, OfAKernelIsReportedAndTheGpuRefusedAndTheProcessGoesOn) {
  Model model = load_model(tiny_model(), "cuda:0");
  const Model other = load_model(tiny_model(), "cuda:0");
  Model packed = [] {
    const std::string directory = tiny_model();
    WanLoadOptions options{};
    options.model_dir = directory.c_str();
    options.device = "cuda:0";
    options.memory = WAN_MEMORY_STREAM;
    const WanCallbacks callbacks{};
    WanModel *loaded = nullptr;
    WanError error;
    EXPECT_EQ(api().load(&options, &callbacks, &loaded, &error), WAN_OK) << error.message;
    return Model(loaded, api().model_free);
  }();
  // All three have page-locked memory that was copied to the GPU or from it.
  EXPECT_EQ(generate(other.get(), {}).status, WAN_OK);
  EXPECT_EQ(generate(packed.get(), {}).status, WAN_OK);
  EXPECT_EQ(generate(model.get(), {}).status, WAN_OK);
  EXPECT_FALSE(kept_.empty());

  expect_device_failure(generate(model.get(), WAN_STAGE_DENOISE));
  expect_device_failure(generate(model.get(), {}));
  expect_device_failure(generate(other.get(), {}));
  for (const std::string device : {"cuda", "cuda:0", "auto"}) {
    try {
      load_model(tiny_model(), device);
      ADD_FAILURE() << "loaded on " << device;
    } catch (const Failure &failure) {
      expect_device_failure(failure);
    }
  }
  WanMemory memory;
  api().memory(model.get(), &memory);
  EXPECT_THAT(memory.device, HasSubstr("cuda:0"));

  packed.reset();
  model.reset();
  kept_.clear();  // after their model
  const Model on_cpu = load_model(tiny_model(), "cpu");
  EXPECT_EQ(generate(on_cpu.get(), {}).status, WAN_OK);
}

}  // namespace
}  // namespace wan::test
