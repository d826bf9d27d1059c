// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Whether the CUDA kernels for rows of a transformer's activations take a tensor. Where they do not, the
// operation is done by its reference.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/row_limits.h"

namespace wan {

inline bool is_aligned(const at::Tensor &x) {
  return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

/// x: [B, L, D].
inline bool takes_rows(const at::Tensor &x, int64_t max_channels = kMaxRowChannels) {
  return x.is_cuda() && x.dim() == 3 && x.scalar_type() == at::kBFloat16 && x.is_contiguous() &&
         is_aligned(x) && x.size(-1) % kRowVector == 0 && x.size(-1) <= max_channels;
}

/// A row that is added to all of x, [D], or undefined.
inline bool takes_bias(const at::Tensor &bias, const at::Tensor &x) {
  return !bias.defined() || (bias.device() == x.device() && bias.scalar_type() == x.scalar_type() &&
                             bias.is_contiguous() && is_aligned(bias));
}

/// A factor or an addend, a row for each segment of x's tokens, for all of its batch or one by one: [1 or B,
/// S, D], float32.
inline bool takes_factor(const at::Tensor &factor, const at::Tensor &x) {
  return factor.device() == x.device() && factor.scalar_type() == at::kFloat && factor.dim() == 3 &&
         (factor.size(0) == 1 || factor.size(0) == x.size(0)) && factor.size(1) <= kMaxSegments &&
         factor.size(2) == x.size(2) && factor.stride(2) == 1 && factor.stride(0) % 4 == 0 &&
         (factor.size(1) == 1 || factor.stride(1) % 4 == 0) && is_aligned(factor);
}

}  // namespace wan
