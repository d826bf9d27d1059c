// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Attention on Hopper's tensor cores (sm_90a), for heads of 128 channels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace wan::sm90 {

constexpr int kAttentionHeadDim = 128;

struct Attention {
  int batch, num_queries, num_keys, heads;
  float scale;         // of the scores
  __nv_bfloat16 *out;  // [batch, num_queries, heads, head_dim]
};

/// [batch, tokens, heads, head_dim] of bfloat16 or e4m3, 16-byte aligned; strides in elements, multiples of 16
/// bytes.
struct HeadRows {
  const void *data;
  int64_t token_stride, batch_stride;
};

/// Values in e4m3, transposed: [batch, heads, head_dim, columns]. A column is a key, in the order that
/// launch_quantize_values() gives them.
struct QuantizedValues {
  const void *data;
  const float *scale;  // [batch, heads, head_dim]
  int64_t columns;
};

/// out = softmax(queries * keys^T * scale) * values.
cudaError_t launch_attention(const Attention &attention, const HeadRows &queries, const HeadRows &keys,
                             const HeadRows &values, cudaStream_t stream);
/// The same in e4m3, where queries and keys are normalised, so that they need no scales.
cudaError_t launch_attention_fp8(const Attention &attention, const HeadRows &queries, const HeadRows &keys,
                                 const QuantizedValues &values, cudaStream_t stream);

}  // namespace wan::sm90
