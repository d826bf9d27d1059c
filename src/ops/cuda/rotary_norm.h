// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include "ops/cuda/rows.h"

namespace wan {

/// [tokens, head_channels / 2] each; cos null: no rotation.
struct RotaryTables {
  const float *cos, *sin;
  int head_channels;
};

/// out = rotate(RMS_norm(x + bias) * weight): bfloat16, or, where it rotates and quantizes, less center in
/// e4m3 without a scale. bias, center: a row, or null.
cudaError_t launch_rms_norm(const __nv_bfloat16 *x, const __nv_bfloat16 *bias, const Rows &rows,
                            const __nv_bfloat16 *weight, const RotaryTables &tables, float eps,
                            bool quantizes, const float *center, void *out, cudaStream_t stream);

/// out = rotate(x).
cudaError_t launch_rotate(const __nv_bfloat16 *x, const Rows &rows, const RotaryTables &tables,
                          __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
