// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The decoder in little memory: tile by tile in space, with the seams blended
// (diffusers AutoencoderKLWan.tiled_decode).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "vae/autoencoder_kl_wan.h"
#include "vae/tiles.h"

namespace wan {

/// latents: what AutoencoderKLWan::denormalize() gives, [1, z_dim, T, H, W]. Returns all frames of the clip
/// in host memory, [1, 3, F, s H, s W] float32 in [-1, 1], s being spatial_scale(). Each tile goes through
/// the whole clip before the next begins: only so is there history of one tile alone. `chunk_done` is called
/// after each latent frame of each tile.
at::Tensor tiled_decode(const AutoencoderKLWan &vae, const at::Tensor &latents, const RunContext &context,
                        const std::function<void()> &chunk_done);

/// Bytes that tiled_decode() needs on the device at its peak, beside the frames.
uint64_t tiled_decode_bytes(const AutoencoderKLWan &vae, int64_t height, int64_t width);

}  // namespace wan
