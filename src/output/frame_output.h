// SPDX-License-Identifier: LGPL-2.1-or-later
//
// From denoised latents to frames in the receiver's format.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "output/colours.h"
#include "output/crossfade.h"
#include "output/frame_pool.h"
#include "output/frame_ring.h"
#include "run_context.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/latent_decoder.h"
#include "wan/engine.h"

namespace wan {

/// Which frames of a clip leave.
struct FrameRange {
  bool without_first;  // unless it is the only one
  int64_t end;
};

/// The decoder and the way out of the engine, of one clip or of one endless video. Allocates when it is made
/// what the first chunk needs.
class FrameOutput {
 public:
  /// decoder: the vae, or a smaller one in its place, which decodes all that is not decoded in tiles.
  FrameOutput(const AutoencoderKLWan &vae, const LatentDecoder &decoder, const WanGenerateOptions &options,
              std::shared_ptr<FramePool> pool, const RunContext &context);

  /// The frames leave past `fade`. latents: [1, z_dim, T, H, W]. In tiles, the first frame comes when all are
  /// decoded. colours: is given all of them, if it is not null. Returns when all are handed over: the last of
  /// them, [1, 3, 1, s H, s W] float32 in [-1, 1]. Throws as FrameRing::push() does.
  at::Tensor operator()(const at::Tensor &latents, const FrameRange &range, bool tiled, Crossfade &fade,
                        Colours *colours = nullptr);

  /// The next section of an endless video, [1, z_dim, F, H, W], of which up to `most` frames are decoded and
  /// leave. begins: it is decoded without those before it, as the first one is. Returns how many did; they
  /// may still be on their way. Throws likewise.
  int64_t append(const at::Tensor &latents, int32_t section, bool begins, int64_t most);
  /// From now on the frame before those of a section's last so many latent frames is kept. All sections must
  /// have more.
  void keep_frame_before_last(int64_t latents) { kept_before_ = latents; }
  /// Of the last section, [1, 3, 1, s H, s W] float32 in [-1, 1].
  const at::Tensor &kept_frame() const { return kept_frame_; }
  /// Frames of so many latent frames, those that a video begins with or others.
  int64_t frames_of(int64_t latents, bool begins) const {
    return latents * vae_.temporal_scale() - (begins ? vae_.temporal_scale() - 1 : 0);
  }
  /// Returns when all are handed over.
  void finish() { ring_.finish(); }

 private:
  /// Hears each chunk of frames, [1, 3, T, H, W].
  using Push = std::function<void(const at::Tensor &chunk)>;
  void decode(const at::Tensor &latents, const Push &push, const std::function<void()> &chunk_done) const;
  void decode_in_tiles(const at::Tensor &latents, const Push &push,
                       const std::function<void()> &chunk_done) const;

  const AutoencoderKLWan &vae_;
  const LatentDecoder &decoder_;
  const RunContext &context_;
  FrameRing ring_;
  StreamState state_;  // of the endless video
  std::optional<int64_t> kept_before_;
  at::Tensor kept_frame_;
};

}  // namespace wan
