// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where an expert's blocks are: all of them on the GPU, or in page-locked host memory and on the GPU by
// turns.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <any>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace wan {

/// Host memory that packed blocks leave free for all else.
constexpr uint64_t kHostReserve = uint64_t{2} << 30;

/// A block of any class that has a for_each_tensor(), as Linear has. In memory modes that keep blocks in host
/// memory its tensors are packed into one arena there.
struct PackedBlock {
  template <typename Block>
  explicit PackedBlock(Block unpacked) : block(std::move(unpacked)) {
    std::any_cast<Block &>(block).for_each_tensor([this](at::Tensor &tensor) { tensors.push_back(&tensor); });
  }
  PackedBlock(const PackedBlock &) = delete;
  PackedBlock &operator=(const PackedBlock &) = delete;

  /// How a tensor lies in the arena; an undefined one has the dtype Undefined.
  struct Layout {
    int64_t offset;  // bytes, a multiple of 256
    std::vector<int64_t> sizes, strides;
    at::ScalarType dtype;
  };

  std::any block;
  std::vector<at::Tensor *> tensors;  // of the block: views of the slot that it is in, else undefined
  std::vector<Layout> layout;         // of each of them; empty unless it is packed
  int64_t bytes = 0;
  std::vector<at::Tensor> host;  // the arena, in pieces
};

/// Host memory of packed blocks, which ranks of the same model have in common: all pack the same blocks in
/// the same order.
class HostArenas {
 public:
  struct Arena {
    std::vector<at::Tensor> pieces;
    bool is_new;  // to be filled by whom it is given to; others may read it when all is packed
  };
  /// Of the index-th block; made where nobody has asked for it yet.
  Arena get(size_t index, const std::function<std::vector<at::Tensor>()> &make);

 private:
  std::mutex mutex_;
  std::vector<std::vector<at::Tensor>> arenas_;  // guarded by it
};

/// Memory on the GPU for a few blocks at a time, which both experts share. Blocks come on a copy stream,
/// beside the computation; events see to it that a slot is computed with only when its block has come, and
/// filled again only when that was computed. The host waits for none of them.
class BlockSlots {
 public:
  /// arenas: of all ranks, which use no block before all have packed theirs and wait() has returned on each;
  /// null: its own.
  BlockSlots(at::Device device, size_t count, std::shared_ptr<HostArenas> arenas = nullptr);
  ~BlockSlots();
  BlockSlots(const BlockSlots &) = delete;
  BlockSlots &operator=(const BlockSlots &) = delete;

  size_t count() const { return slots_.size(); }

  /// Moves the block's tensors into host memory. Throws wan::Error (WAN_OUT_OF_MEMORY).
  void pack(PackedBlock &block);
  /// Makes the block ready for what is queued on the current stream from now on.
  void bring(PackedBlock &block);
  /// What is queued by now was the last to use the block for a while: `next` takes its place, unless that is
  /// on the GPU already, or null.
  void release(PackedBlock &block, PackedBlock *next);
  /// Waits for the copies under way.
  void wait() const;
  /// The same, and lets go of the block, which is about to go away.
  void forget(const PackedBlock &block);

 private:
  struct Slot {
    explicit Slot(at::Device device) : used(device.type()), filled(device.type()) {}

    at::Tensor memory;  // uint8
    PackedBlock *block = nullptr;
    uint64_t last_use = 0;
    c10::Event used, filled;  // on the stream that computes, and on the one that copies
  };

  Slot *find(const PackedBlock &block);
  /// The slot whose block was used longest ago.
  Slot &oldest();
  void vacate(Slot &slot, int64_t bytes);
  void settle(Slot &slot, PackedBlock &block);
  void fill(Slot &slot, PackedBlock &block);
  std::vector<at::Tensor> host_arena(int64_t bytes) const;
  /// The arena's pieces to or from the slot, on the copy stream, after slot.used.
  template <typename Copy>
  void copy(Slot &slot, const PackedBlock &block, Copy copy);
  void record(c10::Event &event, const c10::Stream &stream) const;
  c10::Stream compute_stream() const;

  const at::Device device_;
  const c10::Stream copy_stream_;
  std::shared_ptr<HostArenas> arenas_;
  std::vector<Slot> slots_;
  size_t packed_ = 0;  // blocks
  uint64_t uses_ = 0;
};

/// The blocks of one expert. Used by one forward at a time.
class BlockStore {
 public:
  /// Without slots the blocks stay as they are.
  explicit BlockStore(std::shared_ptr<BlockSlots> slots) : slots_(std::move(slots)) {}
  ~BlockStore();
  BlockStore(const BlockStore &) = delete;
  BlockStore &operator=(const BlockStore &) = delete;

  /// Blocks are used in the order in which they are added, and may be of different classes. Throws wan::Error
  /// (WAN_OUT_OF_MEMORY).
  template <typename Block>
  void add(Block block) {
    PackedBlock &added = blocks_.emplace_back(std::move(block));
    if (slots_) slots_->pack(added);
  }
  size_t size() const { return blocks_.size(); }
  /// Bytes of all blocks' tensors.
  uint64_t bytes() const;

  /// The block, which is a Block, ready for what is queued on the current stream until done().
  template <typename Block>
  const Block &use(size_t index) {
    if (slots_) slots_->bring(blocks_[index]);
    return std::any_cast<const Block &>(blocks_[index].block);
  }
  /// next: whose blocks are used after this store's last one.
  void done(size_t index, BlockStore &next);

 private:
  const std::shared_ptr<BlockSlots> slots_;
  std::deque<PackedBlock> blocks_;
};

}  // namespace wan
