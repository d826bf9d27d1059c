// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Values of attention in e4m3 as launch_attention_fp8() takes them.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace wan {

/// [batch, tokens, heads, 128], to which a bias [heads, 128] is added unless it is null; strides in elements.
struct ValueRows {
  const __nv_bfloat16 *data, *bias;
  int tokens;
  int64_t token_stride, batch_stride;
};

/// So many that every row begins with a line of the cache.
constexpr int64_t value_columns(int64_t tokens) {
  return (tokens + 127) / 128 * 128;
}

/// out: [batch, heads, 128, columns] e4m3; columns: value_columns(), the last ones zero. scale: [batch, heads, 128],
/// of each channel.
cudaError_t launch_quantize_values(const ValueRows &rows, int batch, int heads, int64_t columns, void *out,
                                   float *scale, cudaStream_t stream);

}  // namespace wan
