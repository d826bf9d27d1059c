#include "pipeline/frame_pool.h"

#include <ATen/ATen.h>

#include <utility>

namespace wan {

void FramePool::prepare(int64_t frames, size_t frame_size, size_t count) {
  const std::vector<int64_t> sizes = {frames, static_cast<int64_t>(frame_size)};
  const std::lock_guard lock(mutex_);
  if (sizes_ != sizes) {
    for (const at::Tensor &slot : std::exchange(free_, {})) bytes_ -= slot.nbytes();
    sizes_ = sizes;
  }
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
  const at::Tensor slot = at::zeros(sizes_, at::dtype(at::kByte).pinned_memory(!device_.is_cpu()));
  bytes_ += slot.nbytes();
  return slot;
}

void FramePool::give_back(at::Tensor slot) {
  const std::lock_guard lock(mutex_);
  if (slot.sizes() == sizes_)
    free_.push_back(std::move(slot));
  else
    bytes_ -= slot.nbytes();
}

}  // namespace wan
