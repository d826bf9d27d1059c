// The engine's own threads under ThreadSanitizer, on the CPU: those that convert and hand over frames, and
// those that read ahead. Their sources are instrumented and nothing is suppressed; LibTorch is not
// instrumented, so that its tensors are only handed from thread to thread here, as the engine does.
//
//     engine_test ROUNDS [SEED]
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/staged_reader.h"
#include "common/engine.h"
#include "common/reference.h"
#include "output/frame_ring.h"
#include "tsan/support.h"

using namespace wan;
using test::Dice;

namespace {

/// Takes chunks, keeps some of them for a while, and gives them back from a thread of its own, as downstream
/// does. Refuses the chunk `refused`.
class Receiver {
 public:
  Receiver(int refused, unsigned seed)
      : refused_(refused), dice_(seed), thread_([this, seed] { give_back(seed); }) {}
  ~Receiver() {
    stopping_ = true;
    thread_.join();
    for (WanFrames *frames : held_) free_frames(frames);
  }

  bool take(WanFrames *frames) {
    CHECK(frames->chunk == chunks_);
    // The colour says which chunk it is.
    for (size_t i = 0; i < frames->frame_size * static_cast<size_t>(frames->num_frames); ++i)
      CHECK(frames->data[i] == frames->data[0]);
    const std::lock_guard lock(mutex_);
    held_.push_back(frames);
    dice_.rest(1);
    return chunks_++ != refused_;
  }

 private:
  void give_back(unsigned seed) {
    for (Dice dice(seed + 1); !stopping_; dice.rest(2)) {
      const std::lock_guard lock(mutex_);
      if (held_.empty()) continue;
      free_frames(held_.front());
      held_.erase(held_.begin());
    }
  }

  const int refused_;
  int chunks_ = 0;
  std::mutex mutex_;
  std::vector<WanFrames *> held_;
  Dice dice_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

/// One clip: whole, refused on the way, or given up.
int decode(Dice &dice, const std::shared_ptr<FramePool> &pool) {
  Receiver receiver(dice.roll(20), dice.seed());
  WanCallbacks callbacks{};
  callbacks.user = &receiver;
  callbacks.frames = [](void *user, WanFrames *frames) {
    return static_cast<Receiver *>(user)->take(frames);
  };
  const RunContext context(callbacks);
  const WanPixelLayout layout = test::packed_layout(WAN_PIXEL_RGB, 32, 16);
  FrameRing ring(layout, 4, FrameMemory::kHost, pool, context);
  const int chunks = dice.roll(20);
  try {
    for (int i = 0; i < chunks; ++i) {
      ring.push(at::full({1, 3, i ? 4 : 1, 16, 32}, 0.1 * (i % 10)));
      CHECK(pool->bytes() > 0);
    }
    if (dice.roll(2)) ring.finish();
  } catch (const Error &error) {
    CHECK(error.kind() == WAN_CANCELLED);
  }
  return chunks;
}

/// All tensors of a file, or the first ones.
int read(Dice &dice, const TensorFile &file) {
  std::vector<StagedReader::Range> ranges;
  for (const auto &[name, entry] : file.tensors()) ranges.push_back({&file, &entry});
  StagedReader reader(at::kCPU, ranges);
  const size_t count =
      dice.roll(2) ? ranges.size() : static_cast<size_t>(dice.roll(static_cast<int>(ranges.size())));
  for (size_t i = 0; i < count; ++i) {
    const TensorEntry &entry = *ranges[i].entry;
    CHECK(reader.is_next(entry));
    const at::Tensor bytes = reader.read();
    CHECK(bytes.numel() == static_cast<int64_t>(entry.end - entry.begin));
  }
  return static_cast<int>(count);
}

}  // namespace

int main(int argc, char **argv) {
  const auto [rounds, seed] = test::parse_rounds(argc, argv);
  at::set_num_threads(1);  // OpenMP's are not the engine's, and not instrumented
  const c10::InferenceMode inference;
  Dice dice(seed);
  const auto pool = std::make_shared<FramePool>(at::kCPU);
  const TensorFile file(test::tiny_model() + "/transformer/diffusion_pytorch_model.safetensors");
  int chunks = 0, tensors = 0;
  for (int round = 0; round < rounds; ++round) {
    chunks += decode(dice, pool);
    tensors += read(dice, file);
  }
  std::printf("%d rounds, %d chunks, %d tensors\n", rounds, chunks, tensors);
}
