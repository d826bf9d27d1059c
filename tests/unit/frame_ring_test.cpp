// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way of the frames out of the engine: order, back-pressure, and memory that is used again. On the CPU,
// and on CUDA where WAN_TEST_DEVICE says so, from where the frames go to host memory or stay.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "common/engine.h"
#include "common/tiny_model.h"
#include "ops/frames_to_pixels.h"
#include "output/frame_ring.h"

namespace wan::test {
namespace {

using Frames = std::unique_ptr<WanFrames, void (*)(WanFrames *)>;

constexpr int64_t kChunkFrames = 4;

std::vector<FrameMemory> memories() {
  if (test_device_name() == "cpu") return {FrameMemory::kHost};
  return {FrameMemory::kHost, FrameMemory::kDevice};
}

class FrameRingTest : public testing::TestWithParam<FrameMemory> {
 protected:
  /// Takes a chunk and says whether to go on.
  using Receive = std::function<bool(Frames)>;

  /// A ring that hands its chunks to `receive`, which must outlive it.
  std::unique_ptr<FrameRing> ring(const Receive &receive) {
    WanCallbacks callbacks{};
    callbacks.user = const_cast<Receive *>(&receive);
    callbacks.frames = [](void *user, WanFrames *frames) {
      return (*static_cast<const Receive *>(user))(Frames(frames, free_frames));
    };
    context_ = std::make_unique<RunContext>(callbacks);
    return std::make_unique<FrameRing>(layout_, kChunkFrames, GetParam(), pool_, *context_);
  }

  /// A copy in host memory.
  static at::Tensor pixels_of(const WanFrames &frames) {
    const at::Device device = GetParam() == FrameMemory::kDevice ? test_device() : at::kCPU;
    return at::from_blob(frames.data, {frames.num_frames, static_cast<int64_t>(frames.frame_size)},
                         at::dtype(at::kByte).device(device))
        .to(at::kCPU, /*non_blocking=*/false, /*copy=*/true);
  }

  at::Tensor chunk(int64_t frames) const {
    return (at::rand({1, 3, frames, layout_.height, layout_.width}) * 2 - 1).to(test_device());
  }

  uint64_t slot_bytes() const { return kChunkFrames * layout_.size; }

  const c10::InferenceMode inference_;
  const WanPixelLayout layout_ = packed_layout(WAN_PIXEL_NV12, 64, 32);
  std::shared_ptr<FramePool> pool_ = std::make_shared<FramePool>(test_device());
  std::unique_ptr<RunContext> context_;
};

TEST_P(FrameRingTest, HandsOverEveryChunkInOrderAsItsPixels) {
  std::vector<at::Tensor> sent, received;
  std::vector<int32_t> firsts;
  const Receive receive = [&](Frames frames) {
    EXPECT_EQ(frames->chunk, static_cast<int32_t>(received.size()));
    firsts.push_back(frames->first_frame);
    received.push_back(pixels_of(*frames));
    return true;
  };
  {
    const auto out = ring(receive);
    for (int64_t i = 0; i < 20; ++i) {
      const at::Tensor frames = chunk(i == 0 ? 1 : 4);
      sent.push_back(frames_to_pixels(frames, layout_).cpu());
      out->push(frames);
    }
    out->finish();
  }
  ASSERT_EQ(received.size(), sent.size());
  for (size_t i = 0; i < sent.size(); ++i) {
    EXPECT_TRUE(at::equal(received[i], sent[i])) << i;
    EXPECT_EQ(firsts[i], i == 0 ? 0 : static_cast<int32_t>(4 * i - 3));
  }
}

TEST_P(FrameRingTest, UsesItsMemoryAgainFromClipToClip) {
  const Receive receive = [](Frames) { return true; };
  for (int clip = 0; clip < 3; ++clip) {
    const auto out = ring(receive);
    const uint64_t before = pool_->bytes(), pinned = memory_in_use(test_device()).pinned_bytes;
    for (int i = 0; i < 20; ++i) out->push(chunk(4));
    out->finish();
    EXPECT_EQ(pool_->bytes(), before) << "no allocation while decoding";
    EXPECT_EQ(memory_in_use(test_device()).pinned_bytes, pinned);
    EXPECT_EQ(pool_->bytes(), 4 * slot_bytes());
  }
}

TEST_P(FrameRingTest, AReceiverMayKeepAllChunks) {
  std::vector<Frames> kept;
  const Receive receive = [&](Frames frames) {
    kept.push_back(std::move(frames));
    return true;
  };
  std::vector<at::Tensor> sent;
  {
    const auto out = ring(receive);
    for (int i = 0; i < 20; ++i) {
      const at::Tensor frames = chunk(4);
      sent.push_back(frames_to_pixels(frames, layout_).cpu());
      out->push(frames);
    }
    out->finish();
  }
  EXPECT_EQ(pool_->bytes(), 20 * slot_bytes());
  pool_.reset();  // as when the model is freed
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(at::equal(pixels_of(*kept[i]), sent[i])) << i;
}

TEST_P(FrameRingTest, ASlowReceiverHoldsBackTheDecoder) {
  std::atomic<int> received = 0;
  std::atomic<bool> open = false;
  const Receive receive = [&](Frames) {
    while (!open) std::this_thread::yield();
    ++received;
    return true;
  };
  const auto out = ring(receive);
  std::atomic<int> pushed = 0;
  std::thread decoder([&] {
    const c10::InferenceMode inference;
    for (; pushed < 10; ++pushed) out->push(chunk(4));
    out->finish();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(pushed, 2) << "one is being handed over and one waits";
  EXPECT_EQ(pool_->bytes(), 4 * slot_bytes());
  open = true;
  decoder.join();
  EXPECT_EQ(received, 10);
}

TEST_P(FrameRingTest, ARefusalStopsTheDecoderAndGivesAllMemoryBack) {
  int received = 0;
  const Receive receive = [&](Frames) { return ++received < 3; };
  auto out = ring(receive);
  const auto push_all = [&] {
    for (int i = 0; i < 20; ++i) out->push(chunk(4));
  };
  EXPECT_THROW(push_all(), Error);
  EXPECT_THROW(out->finish(), Error);
  out.reset();
  EXPECT_EQ(received, 3);
  std::vector<std::shared_ptr<const at::Tensor>> slots;
  for (int i = 0; i < 4; ++i) slots.push_back(pool_->take());
  EXPECT_EQ(pool_->bytes(), 4 * slot_bytes()) << "all four are free";
}

TEST_P(FrameRingTest, DropsWhatWasNotHandedOver) {
  std::atomic<int> received = 0;
  const Receive receive = [&](Frames) {
    ++received;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return true;
  };
  {
    const auto out = ring(receive);
    out->push(chunk(4));
    out->push(chunk(4));
    while (received == 0) std::this_thread::yield();
  }
  EXPECT_EQ(received, 1);
  pool_->prepare(GetParam(), kChunkFrames, layout_.size, 4);
  EXPECT_EQ(pool_->bytes(), 4 * slot_bytes());
}

TEST_P(FrameRingTest, AnotherSizeReplacesTheSlots) {
  pool_->prepare(GetParam(), 4, 100, 3);
  std::shared_ptr<const at::Tensor> old = pool_->take();
  EXPECT_EQ(old->sizes(), (std::vector<int64_t>{4, 100}));
  EXPECT_EQ(pool_->bytes(), 1200u);
  pool_->prepare(GetParam(), 4, 50, 1);
  EXPECT_EQ(pool_->bytes(), 400u + 200u);
  old.reset();
  EXPECT_EQ(pool_->bytes(), 200u);
  EXPECT_EQ(pool_->take()->sizes(), (std::vector<int64_t>{4, 50}));
}

TEST_P(FrameRingTest, OtherMemoryReplacesTheSlots) {
  if (GetParam() == FrameMemory::kHost) GTEST_SKIP() << "there is no other memory";
  pool_->prepare(FrameMemory::kHost, 4, 100, 2);
  std::shared_ptr<const at::Tensor> old = pool_->take();
  EXPECT_TRUE(old->is_pinned());
  pool_->prepare(FrameMemory::kDevice, 4, 100, 1);
  EXPECT_EQ(pool_->bytes(), 400u + 400u);
  old.reset();
  EXPECT_EQ(pool_->bytes(), 400u);
  EXPECT_EQ(pool_->take()->device(), test_device());
}

INSTANTIATE_TEST_SUITE_P(, FrameRingTest, testing::ValuesIn(memories()), [](const auto &memory) {
  return memory.param == FrameMemory::kHost ? "Host" : "Device";
});

}  // namespace
}  // namespace wan::test
