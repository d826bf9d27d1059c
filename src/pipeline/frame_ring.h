// The way of decoded chunks out of the engine, beside the decoder: while one chunk is converted, copied and
// handed over, the next is being decoded.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

#include "run_context.h"

namespace wan {

/// On CUDA push() queues conversion on the calling thread's stream and the copy to pinned memory on a copy
/// stream of its own; on the CPU the ring's thread converts. That thread hands the chunks to
/// WanCallbacks.frames in order.
class FrameRing {
 public:
  FrameRing(const WanPixelLayout &layout, at::Device device, const RunContext &context);
  /// Drops what was not handed over.
  ~FrameRing();
  FrameRing(const FrameRing &) = delete;
  FrameRing &operator=(const FrameRing &) = delete;

  /// frames: [1, 3, T, H, W] float32 in [-1, 1]. Waits only while kDepth chunks are on their way, which
  /// bounds memory and holds back the decoder. Throws wan::Error: WAN_CANCELLED, or what went wrong with an
  /// earlier chunk.
  void push(const at::Tensor &frames);
  /// Waits until every chunk was handed over. Throws as push() does.
  void finish();

 private:
  static constexpr size_t kDepth = 2;

  struct Chunk {
    at::Tensor data;                   // frames on the CPU path, pixels in pinned memory on the CUDA path
    std::optional<c10::Event> copied;  // CUDA: the pixels are there
    int32_t index, first_frame;
  };

  Chunk convert_and_copy(const at::Tensor &frames) const;
  void deliver_all();
  void deliver(const Chunk &chunk);
  void rethrow_failure();

  const WanPixelLayout layout_;
  const at::Device device_;
  const RunContext &context_;
  std::optional<c10::Stream> copy_stream_;
  int32_t chunks_ = 0, frames_ = 0;  // pushed so far

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Chunk> chunks_under_way_;  // the first stays in until it was handed over
  std::exception_ptr failure_;
  bool abandoned_ = false;
  std::thread thread_;  // last: it uses all of the above
};

/// Gives back what WanCallbacks.frames was handed.
void free_frames(WanFrames *frames);

}  // namespace wan
