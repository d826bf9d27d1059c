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

/// A row of float32 for all tokens of a segment.
struct RowFactor {
  const float *data;
  int64_t batch_stride, segment_stride;
};

/// The tokens of a batch in runs, of which the first begins at 0.
struct RowSegments {
  int count;
  int64_t starts[kMaxSegments];
};

}  // namespace wan
