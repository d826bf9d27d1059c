// How queries and keys of self-attention are made from their projections.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// RMS norm over all heads together, in float32 and rounded to x's dtype; then adjacent pairs of channels are
/// turned, in float32 again and rounded once. x: [B, L, D]; weight: [D], of x's dtype; cos, sin: [L, 1,
/// head_dim / 2], float32. Returns [B, L, heads, head_dim].
at::Tensor rotary_rms_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps);

}  // namespace wan
