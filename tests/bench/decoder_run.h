// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Videos through the engine's decoder, in the engine's asynchronous way or one thing after the other.
#pragma once

#include <filesystem>

#include "frame_sink.h"
#include "output/frame_pool.h"
#include "trace.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan::bench {

enum class Mode {
  kSync,  // a chunk is decoded, converted, copied to pageable memory and handed over before the next is begun
  kAsync  // as FrameOutput does it, with FrameRing
};

struct VideoTime {
  double seconds, first_frame;  // until the last frame was handed over, until the first was on the host
  int64_t frames;
};

/// How the videos of a VideoDecoder are made.
struct VideoOptions {
  WanPixelLayout layout;
  Mode mode;
  bool tiled;            // in tiles, as WanPipeline does where the GPU's memory is short
  int64_t chunk_frames;  // of a latent frame after the first
};

class VideoDecoder {
 public:
  VideoDecoder(const AutoencoderKLWan &vae, const VideoOptions &options, at::Device device)
      : vae_(vae), options_(options), pool_(std::make_shared<FramePool>(device)) {}

  /// latents: as AutoencoderKLWan::decode takes them, [1, z_dim, T, H, W]. trace may be null.
  VideoTime decode(const at::Tensor &latents, FrameSink &sink, Trace *trace) const;
  /// Writes the decoded frames as float32 [frames, 3, height, width] in [-1, 1].
  void dump(const at::Tensor &latents, const std::filesystem::path &file) const;

 private:
  struct Receiver;

  template <typename Take>
  void decode_chunks(const at::Tensor &latents, const RunContext &context, Trace *trace,
                     const Take &take) const;
  void decode_sync(const at::Tensor &latents, Receiver &receiver) const;
  void decode_async(const at::Tensor &latents, Receiver &receiver) const;

  const AutoencoderKLWan &vae_;
  const VideoOptions options_;
  const std::shared_ptr<FramePool> pool_;
};

}  // namespace wan::bench
