// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What models see of a picture: diffusers.image_processor.VaeImageProcessor (VideoProcessor's of a frame) and
// transformers.CLIPImageProcessor.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// Pixels for the VAE. picture: [H, W, 3] uint8 RGB of any size, in host memory. Returns [1, 3, 1, height,
/// width] float32 in [-1, 1]; the picture's aspect is not kept (Diffusers' default).
at::Tensor vae_pixels(const at::Tensor &picture, int64_t height, int64_t width);

/// Pixels for CLIP: the short edge becomes `size`, of the long one the middle is taken. picture: as above.
/// Returns [1, 3, size, size] float32, normalised. Throws wan::Error (WAN_INVALID) where a picture is too
/// long for that.
at::Tensor clip_pixels(const at::Tensor &picture, int64_t size);
/// The same before it is normalised: [1, 3, size, size] uint8.
at::Tensor clip_crop(const at::Tensor &picture, int64_t size);

}  // namespace wan
