// What lies between the matrix products of a transformer block: norms and residuals that the timestep
// modulates. Everything is computed in float32 and rounded once, to x's dtype. x: [B, L, D]; shift, scale and
// gate: [1 or B, 1, D], float32.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// LayerNorm(x) * (1 + scale) + shift.
at::Tensor modulated_norm(const at::Tensor &x, const at::Tensor &shift, const at::Tensor &scale, double eps);

/// LayerNorm(x) * weight + bias. weight, bias: [D], float32.
at::Tensor affine_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, double eps);

/// x + branch * gate. branch: as x.
at::Tensor gated_residual(const at::Tensor &x, const at::Tensor &branch, const at::Tensor &gate);

}  // namespace wan
