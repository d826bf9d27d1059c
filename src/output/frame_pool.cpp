// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/frame_pool.h"

#include <ATen/ATen.h>

#include <utility>

#include "device.h"

namespace wan {

void FramePool::prepare(FrameMemory memory, int64_t frames, size_t frame_size, size_t count) {
  const std::lock_guard lock(mutex_);
  sizes_ = {frames, static_cast<int64_t>(frame_size)};
  slot_device_ = memory == FrameMemory::kDevice ? device_ : at::kCPU;
  for (at::Tensor &slot : std::exchange(free_, {})) keep_or_free(std::move(slot));
  while (free_.size() < count) free_.push_back(allocate());
}

std::shared_ptr<const at::Tensor> FramePool::take() {
  const std::lock_guard lock(mutex_);
  if (free_.empty()) free_.push_back(allocate());
  at::Tensor slot = std::move(free_.back());
  free_.pop_back();
  return {new at::Tensor(std::move(slot)), [pool = shared_from_this()](at::Tensor *slot) {
            pool->give_back(std::move(*slot));
            delete slot;
          }};
}

uint64_t FramePool::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

at::Tensor FramePool::allocate() {
  const at::Tensor slot = slot_device_ == device_ ? at::empty(sizes_, at::dtype(at::kByte).device(device_))
                                                  : empty_page_locked(sizes_[0] * sizes_[1]).view(sizes_);
  slot.zero_();
  bytes_ += slot.nbytes();
  return slot;
}

void FramePool::give_back(at::Tensor slot) {
  const std::lock_guard lock(mutex_);
  keep_or_free(std::move(slot));
}

void FramePool::keep_or_free(at::Tensor slot) {
  if (slot.sizes() == sizes_ && slot.device() == slot_device_)
    free_.push_back(std::move(slot));
  else
    bytes_ -= slot.nbytes();
}

}  // namespace wan
