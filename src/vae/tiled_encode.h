// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The encoder in little memory: tile by tile in space, with the seams blended
// (diffusers AutoencoderKLWan.tiled_encode).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "vae/autoencoder_kl_wan.h"
#include "vae/tiles.h"

namespace wan {

/// video, and what is returned: as of AutoencoderKLWan::encode(). Each tile goes through the whole clip
/// before the next begins: only so is there history of one tile alone. `tile_done` is called after each of
/// the Tiling::encoding(vae).count() tiles.
at::Tensor tiled_encode(const AutoencoderKLWan &vae, const Video &video, const RunContext &context,
                        const std::function<void()> &tile_done);

/// Bytes that tiled_encode() needs on the device at its peak, beside the video and the latents.
uint64_t tiled_encode_bytes(const AutoencoderKLWan &vae, int64_t height, int64_t width);

}  // namespace wan
