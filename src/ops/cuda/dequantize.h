// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/ggml_types.h"

namespace wan {

/// What quantized blocks stand for, rounded to out's type. blocks: whole ones, at an even address; count: of
/// the values; out: [count], at a multiple of 16 bytes.
cudaError_t launch_dequantize(GgmlType type, const void *blocks, int64_t count, float *out,
                              cudaStream_t stream);
cudaError_t launch_dequantize(GgmlType type, const void *blocks, int64_t count, __nv_bfloat16 *out,
                              cudaStream_t stream);

}  // namespace wan
