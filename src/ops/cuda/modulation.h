#pragma once

#include "ops/cuda/rows.h"

namespace wan {

/// out = LayerNorm(x) * (1 + scale) + shift where it modulates, and else LayerNorm(x) * scale + shift.
cudaError_t launch_layer_norm(const __nv_bfloat16 *x, const Rows &rows, const RowFactor &scale,
                              const RowFactor &shift, bool modulates, float eps, __nv_bfloat16 *out,
                              cudaStream_t stream);

/// out = x + branch * gate.
cudaError_t launch_gated_residual(const __nv_bfloat16 *x, const __nv_bfloat16 *branch, const Rows &rows,
                                  const RowFactor &gate, __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
