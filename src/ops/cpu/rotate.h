// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The turning of adjacent pairs of channels (ops/rotary_norm.h) in one pass over the memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// x, out: [1, L, heads, head_dim], float32 and contiguous; cos, sin: [L, 1, head_dim / 2] likewise.
void rotate_cpu(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, const at::Tensor &out);

}  // namespace wan
