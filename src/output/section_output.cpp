// SPDX-License-Identifier: LGPL-2.1-or-later
#include "output/section_output.h"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <utility>

#include "threads.h"

namespace wan {

namespace {

/// Frames are waited for, and latents of the section after the next are not: the decoder's kernels go first.
constexpr int kHighPriority = -1;

c10::Stream current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

SectionOutput::SectionOutput(FrameOutput &output, at::Device device, Decoding decoding) : output_(output) {
  if (decoding == Decoding::kBetween) return;
  if (device.is_cuda())
    stream_ = c10::impl::VirtualGuardImpl(device.type()).getNewStream(device, kHighPriority);
  thread_ = start_thread([this](const std::stop_token &) { decode_all(); });
}

SectionOutput::~SectionOutput() {
  if (!thread_) return;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
  thread_->join();
}

int64_t SectionOutput::append(const at::Tensor &latents, int32_t index, int64_t most) {
  const bool begins = std::exchange(begins_, false);
  if (!thread_) return output_.append(latents, index, begins, most);
  wait_until_decoded();
  Section section = {latents, index, begins, most, {}};
  if (stream_) {
    section.complete.emplace(stream_->device_type());
    section.complete->record(current_stream(latents.device()));
  }
  {
    const std::lock_guard lock(mutex_);
    section_ = std::move(section);
  }
  changed_.notify_all();
  return std::min(most, output_.frames_of(latents.size(2), begins));
}

void SectionOutput::finish() {
  if (thread_) wait_until_decoded();
  output_.finish();
}

void SectionOutput::wait_until_decoded() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !section_ || failure_; });
  if (failure_) std::rethrow_exception(failure_);
}

void SectionOutput::decode(const Section &section) {
  require_compute_threads();
  const auto append = [&] { output_.append(section.latents, section.index, section.begins, section.most); };
  if (!stream_) return append();
  const c10::StreamGuard guard(*stream_);
  section.complete->block(*stream_);
  section.latents.record_stream(*stream_);  // the caller's memory, which may be freed before the GPU is done
  append();
}

void SectionOutput::decode_all() {
  const c10::InferenceMode inference;
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return abandoned_ || section_; });
    if (abandoned_) return;
    lock.unlock();
    std::exception_ptr failure;
    try {
      decode(*section_);  // which nobody else touches while it is there
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    section_.reset();
    failure_ = failure;
    changed_.notify_all();
    if (failure) return;
  }
}

}  // namespace wan
