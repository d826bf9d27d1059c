// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The sections of an endless video on their way to frames, beside whoever denoises them.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "output/frame_output.h"

namespace wan {

enum class Decoding {
  kBetween,  // on the calling thread: a section is decoded before the next one is denoised
  kBeside    // on a thread of its own, on CUDA also on a stream of its own: while the next one is denoised
};

/// Sections go in, one behind the other, and frames leave by a FrameOutput. With kBeside no section waits:
/// one is being decoded, and the caller, who has made the next one meanwhile, waits until that is done.
class SectionOutput {
 public:
  /// output, which must outlive it, decodes on `device`. Throws wan::Error (WAN_OUT_OF_MEMORY) where the
  /// system starts no thread for it.
  SectionOutput(FrameOutput &output, at::Device device, Decoding decoding);
  /// Waits for the section that is being decoded: its receiver must not block any more.
  ~SectionOutput();
  SectionOutput(const SectionOutput &) = delete;
  SectionOutput &operator=(const SectionOutput &) = delete;

  /// The next section begins a video of its own: it is decoded without those before it.
  void begin_video() { begins_ = true; }
  /// The next section, [1, z_dim, F, H, W], of which up to `most` frames leave. Returns how many will. Throws
  /// what went wrong with it or, with kBeside, with an earlier one, as FrameOutput::append() does.
  int64_t append(const at::Tensor &latents, int32_t section, int64_t most);
  /// With kBetween: FrameOutput::kept_frame().
  const at::Tensor &kept_frame() const { return output_.kept_frame(); }
  /// Returns when all frames are handed over. Throws likewise.
  void finish();

 private:
  struct Section {
    at::Tensor latents;
    int32_t index;
    bool begins;
    int64_t most;
    std::optional<c10::Event> complete;  // of the latents, on CUDA
  };

  void wait_until_decoded();
  void decode_all();
  void decode(const Section &section);

  FrameOutput &output_;
  std::optional<c10::Stream> stream_;  // on CUDA, with kBeside
  bool begins_ = true;                 // the next section a video

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Section> section_;  // until it is decoded
  std::exception_ptr failure_;
  bool abandoned_ = false;
  std::optional<std::jthread> thread_;  // with kBeside; last: it uses all of the above
};

}  // namespace wan
