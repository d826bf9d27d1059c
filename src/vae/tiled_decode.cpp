// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/tiled_decode.h"

#include <ATen/ATen.h>

#include "device.h"

namespace wan {

namespace {

constexpr int64_t kTilePixels = 256, kStridePixels = 192;

/// Frames in host memory: page-locked, so that the host does not wait; on the CPU this is the tensor itself.
at::Tensor to_host(const at::Tensor &frames) {
  if (frames.is_cpu()) return frames;
  return empty_page_locked(frames.numel() * static_cast<int64_t>(sizeof(float)))
      .view(at::kFloat)
      .view(frames.sizes())
      .copy_(frames, /*non_blocking=*/true);
}

/// The whole clip of one tile, [F, 8 h, 8 w, 3] in host memory. latents: [1, z_dim, T, h, w].
at::Tensor decode_tile(const AutoencoderKLWan &vae, const at::Tensor &latents, const RunContext &context,
                       const std::function<void()> &chunk_done) {
  StreamState state;
  Frames chunks;
  for (const at::Tensor &latent : latents.split(1, 2)) {
    context.check();
    chunks.push_back(to_host(vae.decode_unclamped(latent, state, context)[0].permute({1, 2, 3, 0})));
    chunk_done();
  }
  synchronize(latents.device());
  return at::cat(chunks);
}

/// Fades from the end of the tile before into this one, along one dimension of [F, H, W, 3].
void blend(const at::Tensor &before, const at::Tensor &tile, int64_t dim) {
  const int64_t extent = std::min({before.size(dim), tile.size(dim), kTilePixels - kStridePixels});
  std::vector<int64_t> shape = {1, 1, 1, 1};
  shape[static_cast<size_t>(dim)] = extent;
  const at::Tensor share = (at::arange(extent, at::kDouble) / static_cast<double>(extent)).view(shape);
  at::Tensor seam = tile.narrow(dim, 0, extent);
  seam.copy_(before.narrow(dim, before.size(dim) - extent, extent) * (1 - share).to(at::kFloat) +
             seam * share.to(at::kFloat));
}

/// `size` of `x` from `begin` on, or what there is.
at::Tensor window(const at::Tensor &x, int64_t dim, int64_t begin, int64_t size) {
  return x.narrow(dim, begin, std::min(size, x.size(dim) - begin));
}

}  // namespace

Tiling::Tiling(const AutoencoderKLWan &vae)
    : size(kTilePixels / vae.spatial_scale()), stride(kStridePixels / vae.spatial_scale()) {}

int64_t Tiling::count(int64_t height, int64_t width) const {
  return ((height + stride - 1) / stride) * ((width + stride - 1) / stride);
}

at::Tensor tiled_decode(const AutoencoderKLWan &vae, const at::Tensor &latents, const RunContext &context,
                        const std::function<void()> &chunk_done) {
  const Tiling tiling(vae);
  const int64_t scale = vae.spatial_scale(), height = latents.size(3), width = latents.size(4);
  at::Tensor video;
  Frames row;  // the tiles above, replaced one by one
  for (int64_t y = 0; y < height; y += tiling.stride) {
    size_t column = 0;
    for (int64_t x = 0; x < width; x += tiling.stride, ++column) {
      const at::Tensor tile = decode_tile(vae, window(window(latents, 3, y, tiling.size), 4, x, tiling.size),
                                          context, chunk_done);
      // In this order, and with what was blended before: the corners are Diffusers'.
      if (y > 0) blend(row[column], tile, 1);
      if (x > 0) blend(row[column - 1], tile, 2);
      if (!video.defined())
        video = at::empty({tile.size(0), scale * height, scale * width, 3}, tile.options());
      window(window(video, 1, scale * y, kStridePixels), 2, scale * x, kStridePixels)
          .copy_(window(window(tile, 1, 0, kStridePixels), 2, 0, kStridePixels));
      row.resize(std::max(row.size(), column + 1));
      row[column] = tile;
    }
  }
  return video.clamp_(-1, 1).permute({3, 0, 1, 2}).unsqueeze(0);
}

uint64_t tiled_decode_bytes(const AutoencoderKLWan &vae, int64_t height, int64_t width) {
  const Tiling tiling(vae);
  return vae.decode_bytes(std::min(height, tiling.size), std::min(width, tiling.size));
}

}  // namespace wan
