// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/tiled_decode.h"

#include <ATen/ATen.h>

#include "device.h"

namespace wan {

namespace {

/// Frames in host memory: page-locked, so that the host does not wait; on the CPU this is the tensor itself.
at::Tensor to_host(const at::Tensor &frames) {
  if (frames.is_cpu()) return frames;
  return empty_page_locked(frames.numel() * static_cast<int64_t>(sizeof(float)))
      .view(at::kFloat)
      .view(frames.sizes())
      .copy_(frames, /*non_blocking=*/true);
}

/// The whole clip of one tile, [F, s h, s w, 3] in host memory. latents: [1, z_dim, T, h, w].
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

}  // namespace

at::Tensor tiled_decode(const AutoencoderKLWan &vae, const at::Tensor &latents, const RunContext &context,
                        const std::function<void()> &chunk_done) {
  const Tiling tiling(vae);
  const auto tile = [&](int64_t y, int64_t x) {
    return decode_tile(vae, window(window(latents, 3, y, tiling.size), 4, x, tiling.size), context,
                       chunk_done);
  };
  const at::Tensor video =
      blend_tiles(tiling, vae.spatial_scale(), vae.patch_size(), latents.size(3), latents.size(4), tile);
  return video.clamp_(-1, 1).permute({3, 0, 1, 2}).unsqueeze(0);
}

uint64_t tiled_decode_bytes(const AutoencoderKLWan &vae, int64_t height, int64_t width) {
  const Tiling tiling(vae);
  return vae.decode_bytes(std::min(height, tiling.size), std::min(width, tiling.size));
}

}  // namespace wan
