#pragma once

#include "ops/cuda/rows.h"

namespace wan {

/// out = x / RMS(x) * weight, rounded, its pairs of channels turned. weight: [channels]; cos, sin: [tokens,
/// head_channels / 2]. The channels of a head are a multiple of kRowVector.
cudaError_t launch_rotary_rms_norm(const __nv_bfloat16 *x, const Rows &rows, const __nv_bfloat16 *weight,
                                   int head_channels, const float *cos, const float *sin, float eps,
                                   __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
