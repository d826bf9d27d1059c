// SPDX-License-Identifier: LGPL-2.1-or-later
#include "trace.h"

#include "error.h"

#ifdef WAN_BENCH_CUPTI
#include "cuda_trace.h"
#endif

namespace wan::bench {

namespace {

std::unique_ptr<GpuTrace> trace_gpu(at::Device device, [[maybe_unused]] bool chunks) {
  if (device.is_cpu()) return nullptr;
#ifdef WAN_BENCH_CUPTI
  return make_cuda_trace(chunks);
#else
  throw Error(WAN_DEVICE, "wan-bench was built without CUPTI's headers, so it cannot trace the GPU");
#endif
}

}  // namespace

Trace::Trace(at::Device device, bool chunks) : gpu_(trace_gpu(device, chunks)) {}

Timeline Trace::finish() {
  Timeline timeline = gpu_ ? gpu_->finish() : Timeline();
  timeline.insert(timeline.end(), host_.begin(), host_.end());
  return timeline;
}

int64_t Trace::now() const {
  if (gpu_) return gpu_->now();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

Trace::Span::Span(Trace *trace, Lane lane, const char *name, int64_t chunk)
    : trace_(trace), interval_{lane, name, 0, chunk, 0, 0} {
  if (!trace_) return;
  if (trace_->gpu_) trace_->gpu_->enter_chunk(chunk);
  interval_.start = trace_->now();
}

Trace::Span::~Span() {
  if (!trace_) return;
  interval_.end = trace_->now();
  if (trace_->gpu_) trace_->gpu_->leave_chunk();
  const std::lock_guard lock(trace_->mutex_);
  trace_->host_.push_back(std::move(interval_));
}

}  // namespace wan::bench
