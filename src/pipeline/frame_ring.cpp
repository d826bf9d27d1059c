#include "pipeline/frame_ring.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include "ops/frames_to_pixels.h"

namespace wan {

namespace {

/// WanFrames together with the tensor that owns its memory; LibTorch's allocators keep freed memory for the
/// next chunk.
struct OwnedFrames : WanFrames {
  at::Tensor pixels;
};

}  // namespace

void free_frames(WanFrames *frames) {
  delete static_cast<OwnedFrames *>(frames);
}

FrameRing::FrameRing(const WanPixelLayout &layout, at::Device device, const RunContext &context)
    : layout_(layout), device_(device), context_(context) {
  if (!device.is_cpu()) copy_stream_ = c10::impl::VirtualGuardImpl(device.type()).getNewStream(device);
  thread_ = std::thread([this] { deliver_all(); });
}

FrameRing::~FrameRing() {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

FrameRing::Chunk FrameRing::convert_and_copy(const at::Tensor &frames) const {
  if (!copy_stream_) return {frames, std::nullopt, 0, 0};
  const at::Tensor pixels = frames_to_pixels(frames, layout_);
  c10::Event converted(device_.type());
  converted.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  const c10::StreamGuard guard(*copy_stream_);
  converted.block(*copy_stream_);
  Chunk chunk = {at::empty(pixels.sizes(), at::dtype(at::kByte).pinned_memory(true)), std::nullopt, 0, 0};
  chunk.data.copy_(pixels, /*non_blocking=*/true);
  pixels.record_stream(*copy_stream_);
  chunk.copied.emplace(device_.type());
  chunk.copied->record(*copy_stream_);
  return chunk;
}

void FrameRing::push(const at::Tensor &frames) {
  Chunk chunk = convert_and_copy(frames);
  chunk.index = chunks_++;
  chunk.first_frame = frames_;
  frames_ += static_cast<int32_t>(frames.size(2));
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return chunks_under_way_.size() < kDepth || failure_; });
  rethrow_failure();
  chunks_under_way_.push_back(std::move(chunk));
  changed_.notify_all();
}

void FrameRing::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return chunks_under_way_.empty() || failure_; });
  rethrow_failure();
}

void FrameRing::rethrow_failure() {
  if (failure_) std::rethrow_exception(failure_);
}

void FrameRing::deliver(const Chunk &chunk) {
  if (chunk.copied) chunk.copied->synchronize();
  auto owned = std::make_unique<OwnedFrames>();
  owned->pixels = chunk.copied ? chunk.data : frames_to_pixels(chunk.data, layout_);
  owned->data = owned->pixels.mutable_data_ptr<uint8_t>();
  owned->frame_size = layout_.size;
  owned->num_frames = static_cast<int32_t>(owned->pixels.size(0));
  owned->first_frame = chunk.first_frame;
  owned->chunk = chunk.index;
  const WanCallbacks &callbacks = context_.callbacks();
  if (!callbacks.frames(callbacks.user, owned.release()))
    throw Error(WAN_CANCELLED, "The receiver of the frames asked to stop");
}

void FrameRing::deliver_all() {
  const c10::InferenceMode inference;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return abandoned_ || !chunks_under_way_.empty(); });
    if (abandoned_) return;
    const Chunk &chunk = chunks_under_way_.front();  // a deque's elements stay where they are
    lock.unlock();
    std::exception_ptr failure;
    try {
      deliver(chunk);
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    chunks_under_way_.pop_front();
    if (failure) failure_ = failure;
    changed_.notify_all();
    if (failure) return;
  }
}

}  // namespace wan
