// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The norm of the Wan VAE (diffusers WanRMS_norm).
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// x / max(|x|, 1e-12) * sqrt(C) * gamma over the channels, and SiLU of it where asked for. In float32,
/// whatever x is; the result is in x's dtype. x: [..., C], gamma: [C], float32.
at::Tensor rms_norm(const at::Tensor &x, const at::Tensor &gamma, bool silu);

}  // namespace wan
