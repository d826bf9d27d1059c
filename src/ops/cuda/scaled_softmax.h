// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace wan {

/// out = softmax(scale * scores) over each row, rounded to bfloat16. scores, out: [rows, columns]; the
/// columns are a multiple of 4, and a row must fit into the shared memory of a block. The scale is positive.
cudaError_t launch_scaled_softmax(const float *scores, float scale, int64_t rows, int columns,
                                  __nv_bfloat16 *out, cudaStream_t stream);

}  // namespace wan
