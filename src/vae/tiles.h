// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Pictures in tiles that overlap, and how their seams are blended (diffusers AutoencoderKLWan.tiled_decode,
// tiled_encode).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "vae/autoencoder_kl_wan.h"

namespace wan {

/// How many latents wide and high tiles are and how far apart they begin.
struct Tiling {
  /// Of the decoder: 256 and 192 pixels.
  explicit Tiling(const AutoencoderKLWan &vae);
  /// Of the encoder: 256 and 192 of what its convolutions see, which is patches where the VAE works on these.
  static Tiling encoding(const AutoencoderKLWan &vae);
  /// Tiles of H x W latents.
  int64_t count(int64_t height, int64_t width) const;

  int64_t size, stride;

 private:
  explicit Tiling(int64_t values_of_a_latent);
};

/// `size` of `x` from `begin` on in a dimension, or what there is.
at::Tensor window(const at::Tensor &x, int64_t dim, int64_t begin, int64_t size);

/// The tile of latents from (y, x) on as it becomes, [F, scale * h, scale * w, C], to be written to.
using MakeTile = std::function<at::Tensor(int64_t y, int64_t x)>;

/// All tiles of H x W latents as one picture, [F, scale * H, scale * W, C], their seams blended. scale: of
/// the picture to the latents. patch: in height and in width, the pixels that have one place in a seam.
at::Tensor blend_tiles(const Tiling &tiling, int64_t scale, int64_t patch, int64_t height, int64_t width,
                       const MakeTile &make);

}  // namespace wan
