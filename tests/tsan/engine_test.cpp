// The engine's own threads under ThreadSanitizer, on the CPU: those that convert and hand over frames, those
// that read ahead, ranks that compute a sequence together, and those that talk to an element. Their sources
// are instrumented and nothing is suppressed; LibTorch is not instrumented, so that its tensors are only
// handed from thread to thread here, as the engine does.
//
//     engine_test ROUNDS [SEED]
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>
#include <sys/socket.h>

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
#include "parallel/rank_threads.h"
#include "remote/channel.h"
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

/// Ranks that exchange their tokens for heads and back, of which one may fail on the way.
int share(Dice &dice) {
  const int64_t ranks = 2 + dice.roll(3), tokens = ranks + dice.roll(9), heads = ranks + dice.roll(3);
  const int failing = dice.roll(3 * static_cast<int>(ranks)), when = dice.roll(5);
  RankThreads threads(std::vector<at::Device>(static_cast<size_t>(ranks), at::kCPU));
  const auto members = threads.group(0, ranks);
  try {
    threads.run([&](int64_t rank) {
      const SequenceGroup &group = members[static_cast<size_t>(rank)];
      at::Tensor x = at::full({1, group.own_share(tokens).count, heads, 2}, 3.0);
      for (int i = 0; i < 5; ++i) {
        if (rank == failing && i == when) throw invalid("storm");
        group.check();
        Handover handover(group);
        const at::Tensor one = handover.to_heads(x, tokens), two = handover.to_heads(x + 1, tokens);
        handover.wait();
        x = group.mean(group.to_tokens(two - one, heads).mean()).expand_as(x);
      }
      const at::Tensor all = group.gather(x.flatten(2), tokens);
      CHECK(all.defined() == (rank == 0));
    });
  } catch (const Error &) {
    CHECK(failing < ranks);
  }
  return static_cast<int>(ranks);
}

/// A busy worker, which sends signs of life beside its answers.
int converse(Dice &dice) {
  int ends[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  Channel element(SocketPointer(g_socket_new_from_fd(ends[0], nullptr)), "The worker");
  Channel worker(SocketPointer(g_socket_new_from_fd(ends[1], nullptr)), "The element");
  const int answers = 1 + dice.roll(20);
  const std::jthread lives([&] {
    for (int i = 0; i < 50; ++i) worker.send({kAlive});
  });
  const std::jthread speaks([&] {
    for (int i = 0; i < answers; ++i) worker.send({"answer", {{"n", i}}, {at::full({1000}, i, at::kFloat)}});
  });
  for (int i = 0; i < answers; ++i) {
    const Message answer = element.expect("answer");
    CHECK(answer.values.at("n") == i);
    CHECK(answer.tensors.front().eq(i).all().item<bool>());
  }
  return answers;
}

}  // namespace

int main(int argc, char **argv) {
  const auto [rounds, seed] = test::parse_rounds(argc, argv);
  at::set_num_threads(1);  // OpenMP's are not the engine's, and not instrumented
  const c10::InferenceMode inference;
  Dice dice(seed);
  const auto pool = std::make_shared<FramePool>(at::kCPU);
  const TensorFile file(test::tiny_model() + "/transformer/diffusion_pytorch_model.safetensors");
  int chunks = 0, tensors = 0, ranks = 0, answers = 0;
  for (int round = 0; round < rounds; ++round) {
    chunks += decode(dice, pool);
    tensors += read(dice, file);
    ranks += share(dice);
    answers += converse(dice);
  }
  std::printf("%d rounds, %d chunks, %d tensors, %d ranks, %d answers\n", rounds, chunks, tensors, ranks,
              answers);
}
