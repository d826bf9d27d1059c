// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The operations of the VAE's architecture as published, whatever an implementation saves.
#pragma once

#include "checkpoint/config.h"

namespace wan::bench {

/// Floating-point operations (a multiply-add is two) of the matrix products and convolutions that decode one
/// latent frame of height x width. The first of a video gives one frame and skips the temporal convolutions.
double decode_operations(const VaeConfig &config, int64_t height, int64_t width, bool first);
/// Of those that encode one latent frame of height x width: of one frame (the first), or of four.
double encode_operations(const VaeConfig &config, int64_t height, int64_t width, bool first);

}  // namespace wan::bench
