// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What makes frames of latents.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "run_context.h"

namespace wan {

class StreamState;

/// The VAE's decoder, or a small one that was trained to give nearly the same.
class LatentDecoder {
 public:
  virtual ~LatentDecoder() = default;

  /// latent: [1, z_dim, 1, H, W] as the denoiser leaves it, the next latent frame of the stream that `state`
  /// stands for (new for a new stream). Returns [1, 3, 1 (of the first) or 4, s H, s W] float32 in [-1, 1], s
  /// being the VAE's spatial_scale(). Memory does not grow with the stream, and the host does not wait for
  /// the GPU.
  virtual at::Tensor decode_next(const at::Tensor &latent, StreamState &state,
                                 const RunContext &context) const = 0;
  /// Bytes that a stream of H x W latents needs at its peak.
  virtual uint64_t decode_bytes(int64_t height, int64_t width) const = 0;
};

}  // namespace wan
