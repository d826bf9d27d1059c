// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "ops/cuda/rows.h"

namespace wan {

/// Rows of x + bias, or of GELU(x + bias), in e4m3: the largest magnitude of each becomes 448. x: [rows,
/// channels]; bias: a row, or null; out: as x; scale: [rows].
cudaError_t launch_quantize_rows(const __nv_bfloat16 *x, const __nv_bfloat16 *bias, int64_t rows,
                                 int channels, bool applies_gelu, void *out, float *scale,
                                 cudaStream_t stream);

}  // namespace wan
