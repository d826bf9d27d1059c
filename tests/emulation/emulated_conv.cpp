// SPDX-License-Identifier: LGPL-2.1-or-later
#include "emulation/emulated_conv.h"

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>

#include "ops/cuda/conv_sm80.cuh"

namespace wan::emulation {

Index thread, block, grid;

namespace {

constexpr unsigned kLanes = 32;
constexpr size_t kStackBytes = 64 << 10;
constexpr size_t kOperandBytes = 32;  // the most that a lane hands in

struct Copy {
  uint32_t to;
  const void *from;  // null: zeros
};

struct Fibre {
  ucontext_t start;
  jmp_buf place;
  std::unique_ptr<char[]> stack;
  bool started = false, ended = false;
  std::vector<Copy> ungrouped;
  std::deque<std::vector<Copy>> groups;
};

struct Warp {
  unsigned arrived = 0, exchanges = 0;
  char operands[2][kLanes * kOperandBytes];  // of an exchange and the next one
};

/// One block of threads at a time.
class Block {
 public:
  Block(unsigned threads, size_t shared_bytes, unsigned seed)
      : shared_(shared_bytes, '\xff'), fibres_(threads), warps_(threads / kLanes), random_(seed) {}

  void run(std::function<void()> body) {
    body_ = std::move(body);
    for (Fibre &fibre : fibres_) make(fibre);
    while (!fibres_[0].ended) {
      std::vector<unsigned> order(warps_.size());
      for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), random_);
      at_barrier_ = 0;
      for (const unsigned warp : order) run_warp(warp);
    }
    for (const Fibre &fibre : fibres_)
      if (!fibre.ended) throw std::logic_error("A thread waits at a barrier that others have left out");
  }

  void sync() {
    ++at_barrier_;
    suspend();
  }

  const char *exchange(const void *own, size_t bytes) {
    Warp &warp = warps_[thread.x / kLanes];
    char *const all = warp.operands[warp.exchanges % 2];
    std::memcpy(all + thread.x % kLanes * bytes, own, bytes);
    if (++warp.arrived == kLanes) {
      warp.arrived = 0;
      ++warp.exchanges;
    }
    suspend();
    return all;
  }

  Fibre &current() { return fibres_[thread.x]; }
  std::vector<char> &shared() { return shared_; }

 private:
  static void enter();

  void make(Fibre &fibre) {
    fibre.stack = std::make_unique<char[]>(kStackBytes);
    getcontext(&fibre.start);
    fibre.start.uc_stack.ss_sp = fibre.stack.get();
    fibre.start.uc_stack.ss_size = kStackBytes;
    fibre.start.uc_link = nullptr;
    makecontext(&fibre.start, enter, 0);
  }

  /// All lanes go from exchange to exchange together, up to a barrier or the end.
  void run_warp(unsigned warp) {
    const unsigned before = at_barrier_;
    do {
      for (unsigned lane = 0; lane < kLanes; ++lane) resume(warp * kLanes + lane);
      if (warps_[warp].arrived != 0) throw std::logic_error("Lanes of a warp have parted");
    } while (at_barrier_ == before && !fibres_[warp * kLanes].ended);
    if (at_barrier_ != before && at_barrier_ != before + kLanes)
      throw std::logic_error("A part of a warp is at a barrier");
  }

  void resume(unsigned number) {
    thread.x = number;
    Fibre &fibre = fibres_[number];
    if (_setjmp(scheduler_)) return;
    if (fibre.started) _longjmp(fibre.place, 1);
    fibre.started = true;
    setcontext(&fibre.start);
  }
  void suspend() {
    if (_setjmp(current().place) == 0) _longjmp(scheduler_, 1);
  }

  std::function<void()> body_;
  std::vector<char> shared_;
  std::vector<Fibre> fibres_;
  std::vector<Warp> warps_;
  std::mt19937 random_;
  jmp_buf scheduler_;
  unsigned at_barrier_ = 0;
};

Block *running = nullptr;

void Block::enter() {
  running->body_();
  running->current().ended = true;
  _longjmp(running->scheduler_, 1);
}

constexpr size_t kCopyBytes = 16;

}  // namespace

void sync_block() {
  running->sync();
}

const char *exchange_in_warp(const void *own, size_t bytes) {
  return running->exchange(own, bytes);
}

char *shared_memory(uint32_t address) {
  return &running->shared().at(address);
}

uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(static_cast<const char *>(pointer) - running->shared().data());
}

void copy_async(uint32_t shared, const void *global, bool inside) {
  if (shared % kCopyBytes != 0 || reinterpret_cast<uintptr_t>(global) % kCopyBytes != 0)
    throw std::logic_error("A copy is not aligned");
  std::memset(shared_memory(shared), 0xff, kCopyBytes);
  running->current().ungrouped.push_back({shared, inside ? global : nullptr});
}

void commit_copies() {
  Fibre &fibre = running->current();
  fibre.groups.push_back(std::move(fibre.ungrouped));
  fibre.ungrouped.clear();
}

void wait_for_copies(int groups) {
  auto &waiting = running->current().groups;
  for (; waiting.size() > static_cast<size_t>(groups); waiting.pop_front())
    for (const Copy &copy : waiting.front())
      if (copy.from)
        std::memcpy(shared_memory(copy.to), copy.from, kCopyBytes);
      else
        std::memset(shared_memory(copy.to), 0, kCopyBytes);
}

void run(const EmulatedConv &emulated, unsigned blocks, unsigned seed) {
  Conv conv{};
  conv.kind = emulated.kind;
  conv.height = emulated.height;
  conv.width = emulated.width;
  conv.in_channels = emulated.in_channels;
  conv.out_channels = emulated.out_channels;
  std::copy(emulated.frames.begin(), emulated.frames.end(), conv.frames);
  conv.num_frames = static_cast<int>(emulated.frames.size());
  conv.num_outputs = emulated.num_outputs;
  conv.weight = static_cast<const __nv_bfloat16 *>(emulated.weight);
  conv.bias = emulated.bias;
  conv.residual = static_cast<const __nv_bfloat16 *>(emulated.residual);
  conv.gamma = emulated.gamma;
  conv.out = static_cast<__nv_bfloat16 *>(emulated.out);
  conv.activated = static_cast<__nv_bfloat16 *>(emulated.activated);
  conv.planes = emulated.planes;
  conv.plane_stride = emulated.plane_stride;
  grid.x = blocks;
  sm80::with_tiles(conv, [&]<int kN, int kTaps>(const sm80::Params &params) {
    using Layout = sm80::Layout<kN, kTaps>;
    for (block.x = 0; block.x < blocks; ++block.x) {
      Block emulated_block(Layout::kThreads, sizeof(typename Layout::Shared), seed + block.x);
      running = &emulated_block;
      auto &shared = reinterpret_cast<typename Layout::Shared &>(*emulated_block.shared().data());
      emulated_block.run([&] { sm80::convolve<kN, kTaps>(params, shared); });
    }
    return true;
  });
}

}  // namespace wan::emulation
