#include "pipeline/frame_pool.h"

#include <ATen/ATen.h>

#include <utility>

namespace wan {

void FramePool::prepare(FrameMemory memory, int64_t frames, size_t frame_size, size_t count) {
  const std::lock_guard lock(mutex_);
  sizes_ = {frames, static_cast<int64_t>(frame_size)};
  options_ = at::dtype(at::kByte);
  options_ = memory == FrameMemory::kDevice ? options_.device(device_)
                                            : options_.device(at::kCPU).pinned_memory(!device_.is_cpu());
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
  const at::Tensor slot = at::zeros(sizes_, options_);
  bytes_ += slot.nbytes();
  return slot;
}

void FramePool::give_back(at::Tensor slot) {
  const std::lock_guard lock(mutex_);
  keep_or_free(std::move(slot));
}

void FramePool::keep_or_free(at::Tensor slot) {
  if (slot.sizes() == sizes_ && slot.device() == options_.device())
    free_.push_back(std::move(slot));
  else
    bytes_ -= slot.nbytes();
}

}  // namespace wan
