// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way of decoded chunks out of the engine, beside the decoder: while one chunk is converted, copied and
// handed over, the next is being decoded.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "output/frame_pool.h"
#include "run_context.h"

namespace wan {

/// On CUDA push() queues the conversion on the calling thread's stream: into the pool's memory where the
/// frames stay on the GPU, else into a device slot, with the copy from there to the pool's host memory on a
/// copy stream of its own. On the CPU the ring's thread converts. That thread waits until a chunk is
/// complete, and hands the chunks to WanCallbacks.frames in order.
class FrameRing {
 public:
  /// For chunks of up to `chunk_frames` frames. Allocates what it needs, so that push() need not. Throws
  /// wan::Error (WAN_OUT_OF_MEMORY) where the system starts no thread for it.
  FrameRing(const WanPixelLayout &layout, int64_t chunk_frames, FrameMemory memory,
            std::shared_ptr<FramePool> pool, const RunContext &context);
  /// Drops what was not handed over.
  ~FrameRing();
  FrameRing(const FrameRing &) = delete;
  FrameRing &operator=(const FrameRing &) = delete;

  /// frames: [1, 3, T, H, W] float32 in [-1, 1]; on the CPU they must stay as they are until their chunk is
  /// handed over. Waits only while kDepth chunks are on their way, which bounds memory and holds back the
  /// decoder. Throws wan::Error: WAN_CANCELLED, or what went wrong with an earlier chunk.
  /// section: of an endless video.
  void push(const at::Tensor &frames, int32_t section = 0);
  /// Waits until every chunk was handed over. Throws as push() does.
  void finish();

 private:
  /// With two the GPU has a chunk to decode while the host queues the one after it.
  static constexpr size_t kDepth = 2;

  /// Of the CUDA path. Free when the chunk that used it was handed over.
  struct DeviceSlot {
    at::Tensor pixels;  // none where the frames stay on the GPU
    c10::Event converted, complete;
  };
  struct Chunk {
    int32_t index, first_frame, num_frames, section;
    std::shared_ptr<const at::Tensor> pool_slot;
    at::Tensor frames;  // of the CPU path: still to be converted
    DeviceSlot *slot;   // of the CUDA path: not complete yet
    at::Tensor pixels() const { return pool_slot->narrow(0, 0, num_frames); }
  };

  /// Until no more than `chunks` are under way.
  void wait_for_room(size_t chunks);
  void convert(const at::Tensor &frames, const Chunk &chunk) const;
  void deliver_all();
  void deliver(const Chunk &chunk) const;

  const WanPixelLayout layout_;
  const std::shared_ptr<FramePool> pool_;
  const RunContext &context_;
  std::optional<c10::Stream> copy_stream_;  // where frames come from CUDA to the host
  std::vector<DeviceSlot> slots_;           // none on the CPU
  int32_t chunks_ = 0, frames_ = 0;         // pushed so far

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Chunk> chunks_under_way_;  // the first stays in until it was handed over
  std::exception_ptr failure_;
  bool abandoned_ = false;
  std::jthread thread_;  // last: it uses all of the above
};

/// Gives back what WanCallbacks.frames was handed.
void free_frames(WanFrames *frames);

}  // namespace wan
