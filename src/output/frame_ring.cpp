// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/frame_ring.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <utility>

#include "ops/frames_to_pixels.h"
#include "threads.h"

namespace wan {

namespace {

/// WanFrames together with the slot of the pool that it lies in.
struct OwnedFrames : WanFrames {
  std::shared_ptr<const at::Tensor> slot;
};

}  // namespace

void free_frames(WanFrames *frames) {
  delete static_cast<OwnedFrames *>(frames);
}

FrameRing::FrameRing(const WanPixelLayout &layout, int64_t chunk_frames, FrameMemory memory,
                     std::shared_ptr<FramePool> pool, const RunContext &context)
    : layout_(layout), pool_(std::move(pool)), context_(context) {
  // Those under way, and one or two at the receiver.
  pool_->prepare(memory, chunk_frames, layout.size, kDepth + 2);
  if (const at::Device device = pool_->device(); !device.is_cpu()) {
    for (size_t slot = 0; slot < kDepth; ++slot)
      slots_.push_back({{}, c10::Event(device.type()), c10::Event(device.type())});
    if (memory == FrameMemory::kHost) {
      copy_stream_ = c10::impl::VirtualGuardImpl(device.type()).getNewStream(device);
      for (DeviceSlot &slot : slots_)
        slot.pixels =
            at::zeros({chunk_frames, static_cast<int64_t>(layout.size)}, at::dtype(at::kByte).device(device));
    }
  }
  thread_ = start_thread([this](const std::stop_token &) { deliver_all(); });
}

FrameRing::~FrameRing() {
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
  thread_.join();
  if (!copy_stream_) return;
  try {
    // The slots may only be used again when nothing is copied out of them or into them any more.
    c10::impl::VirtualGuardImpl(copy_stream_->device_type()).synchronizeStream(*copy_stream_);
  } catch (const c10::Error &) {
    // The device has failed, which the generation has reported; it copies no more.
  }
}

void FrameRing::convert(const at::Tensor &frames, const Chunk &chunk) const {
  DeviceSlot &slot = *chunk.slot;
  const c10::Stream stream = c10::impl::VirtualGuardImpl(frames.device().type()).getStream(frames.device());
  if (!copy_stream_) {
    frames_to_pixels_out(chunk.pixels(), frames, layout_);
    slot.complete.record(stream);
    return;
  }
  const at::Tensor pixels = slot.pixels.narrow(0, 0, chunk.num_frames);
  frames_to_pixels_out(pixels, frames, layout_);
  slot.converted.record(stream);
  const c10::StreamGuard guard(*copy_stream_);
  slot.converted.block(*copy_stream_);
  chunk.pixels().copy_(pixels, /*non_blocking=*/true);
  slot.complete.record(*copy_stream_);
}

void FrameRing::push(const at::Tensor &frames, int32_t section) {
  wait_for_room(kDepth - 1);
  Chunk chunk = {chunks_, frames_, static_cast<int32_t>(frames.size(2)), section, pool_->take(), {}, nullptr};
  if (slots_.empty()) {
    chunk.frames = frames;
  } else {
    chunk.slot = &slots_[static_cast<size_t>(chunk.index) % kDepth];
    convert(frames, chunk);
  }
  chunks_ += 1;
  frames_ += chunk.num_frames;
  const std::lock_guard lock(mutex_);
  chunks_under_way_.push_back(std::move(chunk));
  changed_.notify_all();
}

void FrameRing::finish() {
  wait_for_room(0);
}

void FrameRing::wait_for_room(size_t chunks) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return chunks_under_way_.size() <= chunks || failure_; });
  if (failure_) std::rethrow_exception(failure_);
}

void FrameRing::deliver(const Chunk &chunk) const {
  const at::Tensor pixels = chunk.pixels();
  if (chunk.slot) {
    chunk.slot->complete.synchronize();
  } else {
    require_compute_threads();
    frames_to_pixels_out(pixels, chunk.frames, layout_);
  }
  auto owned = std::make_unique<OwnedFrames>();
  owned->data = pixels.mutable_data_ptr<uint8_t>();
  owned->frame_size = layout_.size;
  owned->num_frames = chunk.num_frames;
  owned->first_frame = chunk.first_frame;
  owned->chunk = chunk.index;
  owned->section = chunk.section;
  owned->slot = chunk.pool_slot;
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
