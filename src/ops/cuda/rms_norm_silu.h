// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace wan {

/// out = SiLU(RMS_norm(x) * gamma), or without SiLU. x and out: [pixels, channels] bfloat16; gamma:
/// [channels]. The channels are a multiple of 8, at most kMaxNormChannels.
constexpr int kMaxNormChannels = 1024;
cudaError_t launch_rms_norm_silu(const __nv_bfloat16 *x, const float *gamma, int64_t pixels, int channels,
                                 bool silu, __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
