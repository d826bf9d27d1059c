// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What lies between the matrix products of a transformer block: norms and residuals that the timestep
// modulates. Everything is computed in float32 and rounded once, to x's dtype; with `quantizes` then to e4m3,
// as by quantize_rows(). x: [B, L, D]; shift, scale and gate: [1 or B, S, D], float32, a row for each of the
// S segments of tokens that have a timestep of their own. starts: the first token of each segment, from 0 on.
#pragma once

#include "ops/linear.h"

namespace wan {

/// All tokens have the same timestep.
inline constexpr int64_t kOneSegment[] = {0};

/// LayerNorm(x) * (1 + scale) + shift.
Activations modulated_norm(const at::Tensor &x, const at::Tensor &shift, const at::Tensor &scale, double eps,
                           bool quantizes = false, at::IntArrayRef starts = kOneSegment);

/// LayerNorm(x) * weight + bias. weight, bias: [D], float32.
Activations affine_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, double eps,
                        bool quantizes = false);

/// x + branch * gate. branch: as x.
at::Tensor gated_residual(const at::Tensor &x, const Product &branch, const at::Tensor &gate,
                          at::IntArrayRef starts = kOneSegment);

/// x + branch.
at::Tensor residual(const at::Tensor &x, const Product &branch);

}  // namespace wan
