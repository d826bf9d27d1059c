// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How queries and keys of attention are made from their projections.
#pragma once

#include "ops/linear.h"

namespace wan {

/// RMS norm over all heads together, in float32 and rounded to x's dtype. x: [B, L, D]; weight: [D], of x's
/// dtype. Returns [B, L, D].
at::Tensor heads_rms_norm(const Product &x, const at::Tensor &weight, double eps);

/// The same, and then adjacent pairs of channels are turned, in float32 again and rounded once to x's dtype.
/// cos, sin: [L, 1, head_dim / 2], float32. Returns [B, L, heads, head_dim].
at::Tensor rotary_rms_norm(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps);

/// The turning alone, of keys that were normed before. x: [B, L, heads, head_dim]. Returns the same.
at::Tensor rotate_heads(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin);
/// The same, written to `out`, of x's shape and dtype.
void rotate_heads_out(const at::Tensor &out, const at::Tensor &x, const at::Tensor &cos,
                      const at::Tensor &sin);

/// The same as rotary_rms_norm() rounded to e4m3, whose range needs no scale for what a norm gives. centers:
/// less one vector for all tokens, about their mean, so that what is left is rounded finer. The softmax does
/// not see what is taken from all keys alike (SageAttention, https://arxiv.org/abs/2410.02367).
at::Tensor fp8_rotary_rms_norm(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                               const at::Tensor &sin, double eps, bool centers = false);

}  // namespace wan
