// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/tiled_encode.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace wan {

at::Tensor tiled_encode(const AutoencoderKLWan &vae, const Video &video, const RunContext &context,
                        const std::function<void()> &tile_done) {
  const Tiling tiling = Tiling::encoding(vae);
  const int64_t scale = vae.spatial_scale(), size = scale * tiling.size;
  const auto tile = [&](int64_t y, int64_t x) {
    const Video pixels = video.window(scale * y, scale * x, size, size);
    const at::Tensor latents = vae.encode(pixels, context)[0].permute({1, 2, 3, 0});
    tile_done();
    return latents;
  };
  const at::Tensor latents =
      blend_tiles(tiling, /*scale=*/1, /*patch=*/1, video.height() / scale, video.width() / scale, tile);
  return latents.permute({3, 0, 1, 2}).unsqueeze(0).contiguous();
}

uint64_t tiled_encode_bytes(const AutoencoderKLWan &vae, int64_t height, int64_t width) {
  const Tiling tiling = Tiling::encoding(vae);
  return vae.encode_bytes(std::min(height, tiling.size), std::min(width, tiling.size));
}

}  // namespace wan
