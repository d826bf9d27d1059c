// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/tiles.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace wan {

namespace {

constexpr int64_t kTile = 256, kStride = 192;

/// The pixels in which a tile fades over the one before it.
struct Seam {
  int64_t extent, patch;

  /// How much of each is the tile's.
  at::Tensor shares() const {
    const at::Tensor place = at::arange(extent / patch, at::kDouble).repeat_interleave(patch);
    return place / static_cast<double>(extent / patch);
  }
};

/// Fades from the end of the tile before into this one, along one dimension of [F, H, W, C].
void blend(const at::Tensor &before, const at::Tensor &tile, int64_t dim, const Seam &most) {
  const Seam seam = {std::min({before.size(dim), tile.size(dim), most.extent}), most.patch};
  std::vector<int64_t> shape = {1, 1, 1, 1};
  shape[static_cast<size_t>(dim)] = seam.extent;
  const at::Tensor share = seam.shares().view(shape);
  const auto factor = [&tile](const at::Tensor &values) { return values.to(tile.device(), at::kFloat); };
  at::Tensor pixels = tile.narrow(dim, 0, seam.extent);
  pixels.copy_(before.narrow(dim, before.size(dim) - seam.extent, seam.extent) * factor(1 - share) +
               pixels * factor(share));
}

}  // namespace

Tiling::Tiling(int64_t values_of_a_latent)
    : size(kTile / values_of_a_latent), stride(kStride / values_of_a_latent) {}

Tiling::Tiling(const AutoencoderKLWan &vae) : Tiling(vae.spatial_scale()) {}

Tiling Tiling::encoding(const AutoencoderKLWan &vae) {
  return Tiling(vae.spatial_scale() / vae.patch_size());
}

int64_t Tiling::count(int64_t height, int64_t width) const {
  return ((height + stride - 1) / stride) * ((width + stride - 1) / stride);
}

at::Tensor window(const at::Tensor &x, int64_t dim, int64_t begin, int64_t size) {
  return x.narrow(dim, begin, std::min(size, x.size(dim) - begin));
}

at::Tensor blend_tiles(const Tiling &tiling, int64_t scale, int64_t patch, int64_t height, int64_t width,
                       const MakeTile &make) {
  const int64_t stride = scale * tiling.stride;
  const Seam seam = {scale * tiling.size - stride, patch};
  at::Tensor picture;
  std::vector<at::Tensor> row;  // the tiles above, replaced one by one
  for (int64_t y = 0; y < height; y += tiling.stride) {
    size_t column = 0;
    for (int64_t x = 0; x < width; x += tiling.stride, ++column) {
      const at::Tensor tile = make(y, x);
      // In this order, and with what was blended before: the corners are Diffusers'.
      if (y > 0) blend(row[column], tile, 1, seam);
      if (x > 0) blend(row[column - 1], tile, 2, seam);
      if (!picture.defined())
        picture = at::empty({tile.size(0), scale * height, scale * width, tile.size(3)}, tile.options());
      window(window(picture, 1, scale * y, stride), 2, scale * x, stride)
          .copy_(window(window(tile, 1, 0, stride), 2, 0, stride));
      row.resize(std::max(row.size(), column + 1));
      row[column] = tile;
    }
  }
  return picture;
}

}  // namespace wan
