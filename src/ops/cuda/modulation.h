// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "ops/cuda/rows.h"

namespace wan {

/// out = LayerNorm(x) * (1 + scale) + shift where it modulates, and else LayerNorm(x) * scale + shift:
/// bfloat16, or, where out_scale is not null, e4m3 with a scale for each row.
cudaError_t launch_layer_norm(const __nv_bfloat16 *x, const Rows &rows, const RowSegments &segments,
                              const RowFactor &scale, const RowFactor &shift, bool modulates, float eps,
                              void *out, float *out_scale, cudaStream_t stream);

/// out = x + (branch + bias) * gate; without a bias where that is null, and without a gate where its data is.
/// bias: a row.
cudaError_t launch_gated_residual(const __nv_bfloat16 *x, const __nv_bfloat16 *branch,
                                  const __nv_bfloat16 *bias, const Rows &rows, const RowSegments &segments,
                                  const RowFactor &gate, __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
