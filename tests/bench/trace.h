// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Records a timeline: spans of the host's threads and, on CUDA, everything that runs on the GPU.
#pragma once

#include <c10/core/Device.h>

#include <memory>
#include <mutex>

#include "timeline.h"

namespace wan::bench {

/// The GPU's side, between construction and finish().
class GpuTrace {
 public:
  virtual ~GpuTrace() = default;
  /// Nanoseconds on the clock of its intervals.
  virtual int64_t now() const = 0;
  /// What the calling thread queues from now on belongs to this chunk, until leave_chunk().
  virtual void enter_chunk(int64_t chunk) = 0;
  virtual void leave_chunk() = 0;
  /// To be called when the GPU is done.
  virtual Timeline finish() = 0;
};

class Trace {
 public:
  /// `chunks`: intervals of the GPU say which chunk they belong to; that costs the host time. Throws
  /// wan::Error (WAN_DEVICE) where a GPU cannot be traced.
  Trace(at::Device device, bool chunks);
  Timeline finish();

  /// Something that the calling thread does during this object's life. trace may be null.
  class Span {
   public:
    Span(Trace *trace, Lane lane, const char *name, int64_t chunk);
    ~Span();
    Span(const Span &) = delete;
    Span &operator=(const Span &) = delete;

   private:
    Trace *const trace_;
    Interval interval_;
  };

 private:
  int64_t now() const;

  const std::unique_ptr<GpuTrace> gpu_;
  std::mutex mutex_;
  Timeline host_;
};

}  // namespace wan::bench
