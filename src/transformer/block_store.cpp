// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/block_store.h"

#include <ATen/ATen.h>
#include <ATen/core/CachingHostAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <atomic>
#include <future>

#include "device.h"
#include "threads.h"

namespace wan {

namespace {

constexpr int64_t kAlignment = 256;  // bytes; what LibTorch's allocator and its kernels count on
/// LibTorch rounds page-locked memory up to a power of two, which would waste half as much again on a block.
constexpr int64_t kPieceBytes = int64_t{64} << 20;
/// Page-locking takes several times as long as reading the weights.
constexpr size_t kLockingThreads = 4;

c10::Stream copy_stream(at::Device device) {
  if (device.is_cpu()) return c10::Stream(c10::Stream::DEFAULT, device);
  return c10::impl::VirtualGuardImpl(device.type()).getNewStream(device);
}

at::Tensor view(const at::Tensor &memory, const PackedBlock::Layout &layout) {
  const int64_t bytes =
      c10::multiply_integers(layout.sizes) * static_cast<int64_t>(elementSize(layout.dtype));
  return memory.narrow(0, layout.offset, bytes).view(layout.dtype).as_strided(layout.sizes, layout.strides);
}

/// Plans the arena. A tensor whose memory has holes is laid out anew.
void plan(PackedBlock &packed) {
  for (at::Tensor *const tensor : packed.tensors) {
    if (!tensor->defined()) {
      packed.layout.push_back({packed.bytes, {}, {}, at::ScalarType::Undefined});
      continue;
    }
    if (!tensor->is_non_overlapping_and_dense()) *tensor = tensor->contiguous();
    packed.layout.push_back(
        {packed.bytes, tensor->sizes().vec(), tensor->strides().vec(), tensor->scalar_type()});
    const auto bytes = static_cast<int64_t>(tensor->nbytes());
    packed.bytes += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
}

/// Calls function(tensor, its layout) for each tensor that the block has.
template <typename Function>
void for_each_packed(PackedBlock &packed, Function function) {
  for (size_t i = 0; i < packed.layout.size(); ++i)
    if (packed.layout[i].dtype != at::ScalarType::Undefined) function(*packed.tensors[i], packed.layout[i]);
}

/// Returns when all are done.
void run_side_by_side(std::vector<std::packaged_task<void()>> &tasks) {
  std::vector<std::jthread> threads;
  for (std::packaged_task<void()> &task : tasks)
    threads.push_back(start_thread([&task](const std::stop_token &) { task(); }));
}

}  // namespace

HostArenas::Arena HostArenas::get(size_t index, const std::function<std::vector<at::Tensor>()> &make) {
  const std::lock_guard lock(mutex_);
  const bool is_new = index == arenas_.size();
  if (is_new) arenas_.push_back(make());
  return {arenas_[index], is_new};
}

BlockSlots::BlockSlots(at::Device device, size_t count, std::shared_ptr<HostArenas> arenas)
    : device_(device),
      copy_stream_(copy_stream(device)),
      arenas_(arenas ? std::move(arenas) : std::make_shared<HostArenas>()) {
  for (size_t i = 0; i < count; ++i) slots_.emplace_back(device);
}

BlockSlots::~BlockSlots() {
  arenas_.reset();
  if (device_.is_cpu()) return;
  try {
    // Else LibTorch would keep the blocks' host memory for its next allocation.
    at::getHostAllocator(device_.type())->empty_cache();
  } catch (const c10::Error &) {
    // The device has failed, which a generation has reported.
  }
}

c10::Stream BlockSlots::compute_stream() const {
  if (device_.is_cpu()) return copy_stream_;
  return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
}

/// On the CPU everything is done when it is called, and an event that was never recorded holds nobody up.
void BlockSlots::record(c10::Event &event, const c10::Stream &stream) const {
  if (!device_.is_cpu()) event.record(stream);
}

std::vector<at::Tensor> BlockSlots::host_arena(int64_t bytes) const {
  const uint64_t free = free_memory(at::kCPU), needed = static_cast<uint64_t>(bytes) + kHostReserve;
  const auto too_little = [&](const std::string &detail) {
    return Error(WAN_OUT_OF_MEMORY, "The host has too little memory to keep the experts in: another " +
                                        std::to_string(needed >> 20) + " MiB are needed, and " +
                                        std::to_string(free >> 20) + " MiB are free" + detail +
                                        ": end other programs, or choose a smaller model");
  };
  if (needed > free) throw too_little("");
  std::vector<at::Tensor> pieces(static_cast<size_t>((bytes + kPieceBytes - 1) / kPieceBytes));
  std::atomic<size_t> next = 0;
  const auto allocate = [&] {
    for (size_t i; (i = next++) < pieces.size();) {
      const auto begin = static_cast<int64_t>(i) * kPieceBytes;
      const int64_t size = std::min(kPieceBytes, bytes - begin);
      pieces[i] = device_.is_cpu() ? at::empty({size}, at::kByte) : empty_page_locked(size);
    }
  };
  std::vector<std::packaged_task<void()>> tasks;
  for (size_t i = 0; i < kLockingThreads; ++i) tasks.emplace_back(allocate);
  run_side_by_side(tasks);
  try {
    for (std::packaged_task<void()> &task : tasks) task.get_future().get();
  } catch (const c10::Error &) {
    require_working(device_);
    throw too_little(", of which the system does not let so many be page-locked");
  }
  return pieces;
}

BlockSlots::Slot *BlockSlots::find(const PackedBlock &block) {
  const auto found =
      std::find_if(slots_.begin(), slots_.end(), [&block](const Slot &slot) { return slot.block == &block; });
  return found == slots_.end() ? nullptr : &*found;
}

BlockSlots::Slot &BlockSlots::oldest() {
  return *std::min_element(slots_.begin(), slots_.end(),
                           [](const Slot &a, const Slot &b) { return a.last_use < b.last_use; });
}

/// Afterwards the current stream may write to the slot.
void BlockSlots::vacate(Slot &slot, int64_t bytes) {
  if (slot.block) for_each_packed(*slot.block, [](at::Tensor &tensor, const auto &) { tensor.reset(); });
  slot.block = nullptr;
  if (slot.memory.defined() && slot.memory.numel() >= bytes) return;
  slot.filled.block(compute_stream());  // before the allocator hands the memory to another
  slot.memory.reset();
  slot.memory = at::empty({bytes}, at::dtype(at::kByte).device(device_));
  record(slot.used, compute_stream());
}

void BlockSlots::settle(Slot &slot, PackedBlock &block) {
  for_each_packed(block, [&slot](at::Tensor &tensor, const PackedBlock::Layout &layout) {
    tensor = view(slot.memory, layout);
  });
  slot.block = &block;
  slot.last_use = ++uses_;
}

template <typename Copy>
void BlockSlots::copy(Slot &slot, const PackedBlock &block, Copy copy) {
  const c10::StreamGuard guard(copy_stream_);
  slot.used.block(copy_stream_);
  int64_t done = 0;
  for (const at::Tensor &piece : block.host) {
    copy(piece, slot.memory.narrow(0, done, piece.numel()));
    done += piece.numel();
  }
  record(slot.filled, copy_stream_);
}

void BlockSlots::pack(PackedBlock &block) {
  plan(block);
  const HostArenas::Arena arena = arenas_->get(packed_++, [&] { return host_arena(block.bytes); });
  block.host = arena.pieces;
  // The slot gathers the tensors, so that the host gets the arena in large pieces.
  Slot &slot = oldest();
  vacate(slot, block.bytes);
  slot.filled.block(compute_stream());
  for_each_packed(block, [&slot](const at::Tensor &tensor, const PackedBlock::Layout &layout) {
    view(slot.memory, layout).copy_(tensor);
  });
  settle(slot, block);
  record(slot.used, compute_stream());
  if (!arena.is_new) return;
  copy(slot, block,
       [](const at::Tensor &host, const at::Tensor &device) { host.copy_(device, /*non_blocking=*/true); });
}

void BlockSlots::fill(Slot &slot, PackedBlock &block) {
  vacate(slot, block.bytes);
  copy(slot, block,
       [](const at::Tensor &host, const at::Tensor &device) { device.copy_(host, /*non_blocking=*/true); });
  settle(slot, block);
}

void BlockSlots::bring(PackedBlock &block) {
  Slot *slot = find(block);
  if (!slot) fill(*(slot = &oldest()), block);
  slot->filled.block(compute_stream());
  slot->last_use = ++uses_;
}

void BlockSlots::release(PackedBlock &block, PackedBlock *next) {
  Slot &slot = *find(block);
  record(slot.used, compute_stream());
  if (next && !find(*next)) fill(slot, *next);
}

void BlockSlots::forget(const PackedBlock &block) {
  if (Slot *slot = find(block)) slot->block = nullptr;
  wait();
}

void BlockSlots::wait() const {
  if (device_.is_cpu()) return;
  try {
    c10::impl::VirtualGuardImpl(device_.type()).synchronizeStream(copy_stream_);
  } catch (const c10::Error &) {
    // The device has failed, which a generation has reported; it copies no more.
  }
}

BlockStore::~BlockStore() {
  if (!slots_) return;
  for (const PackedBlock &block : blocks_) slots_->forget(block);
}

uint64_t BlockStore::bytes() const {
  uint64_t sum = 0;
  for (const PackedBlock &block : blocks_)
    for (const at::Tensor *const tensor : block.tensors) sum += tensor->defined() ? tensor->nbytes() : 0;
  return sum;
}

void BlockStore::done(size_t index, BlockStore &next) {
  if (!slots_) return;
  // The slot's next block is the one whose turn comes when all other slots have had theirs.
  const size_t turn = index + slots_->count();
  PackedBlock *coming = nullptr;
  if (turn < blocks_.size())
    coming = &blocks_[turn];
  else if (turn - blocks_.size() < next.blocks_.size())
    coming = &next.blocks_[turn - blocks_.size()];
  slots_->release(blocks_[index], coming);
}

}  // namespace wan
