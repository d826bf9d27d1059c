// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rows of a transformer's activations, as its kernels get them; see ops/rows.h.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/row_limits.h"

namespace wan {

/// The shape of [B, L, D] bfloat16, contiguous.
struct Rows {
  int64_t batch, tokens;
  int channels;
};

/// One row of float32 for all tokens of a batch.
struct RowFactor {
  const float *data;
  int64_t batch_stride;
};

}  // namespace wan
