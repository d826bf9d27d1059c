// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Memory of decoded chunks, from the decoder to whoever receives the frames and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace wan {

/// Where frames lie when they are handed over: in host memory, or in that of the device that made them.
enum class FrameMemory { kHost, kDevice };

/// Slots of one chunk each; those in host memory are page-locked where the frames come from a GPU. A slot
/// comes back when its chunk is given back and is used again, from clip to clip: allocating page-locked
/// memory would halt the GPU.
///
/// There are as many slots as were ever in use at once. The pool has no limit of its own, since a decoder
/// that waited for frames to come back would never end where a receiver needs the next frame before it gives
/// back the first, as encoders do: what bounds the number is that FrameRing waits until the receiver takes a
/// chunk.
///
/// Its methods may be called from any thread. It lives as long as its owner or a slot.
class FramePool : public std::enable_shared_from_this<FramePool> {
 public:
  explicit FramePool(at::Device device) : device_(device) {}

  /// From now on a slot is uint8 [frames, frame_size], zeros when it is new, and `count` of them are free.
  /// Slots of another size or memory are freed; those in use, when they come back.
  void prepare(FrameMemory memory, int64_t frames, size_t frame_size, size_t count);
  /// A free slot, or a new one. It comes back when the last reference is dropped.
  std::shared_ptr<const at::Tensor> take();
  at::Device device() const { return device_; }
  /// Of all slots, free and in use.
  uint64_t bytes() const;

 private:
  at::Tensor allocate();
  void give_back(at::Tensor slot);
  void keep_or_free(at::Tensor slot);

  const at::Device device_;
  mutable std::mutex mutex_;  // guards all that follows
  std::vector<int64_t> sizes_ = {0, 0};
  at::Device slot_device_ = at::kCPU;
  std::vector<at::Tensor> free_;
  uint64_t bytes_ = 0;
};

}  // namespace wan
