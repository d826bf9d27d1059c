// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Attention: the transformer's, with many heads, and the Wan VAE's, with one wide one.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// softmax(q k^T / sqrt(head_dim)) v. q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim]. Returns
/// [B, Lq, heads, head_dim].
at::Tensor attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v);

/// Whether there is an attention in e4m3 for so many keys and such heads: on Hopper GPUs, and as its
/// reference on the CPU.
bool has_fp8_attention(at::Device device, int64_t num_keys, int64_t head_dim);
/// The same with products in e4m3. q, k: e4m3, without scales; v: bfloat16, scaled and rounded inside;
/// v_bias: [heads * head_dim] is added to v, or undefined. Returns v's dtype.
at::Tensor fp8_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                         const at::Tensor &v_bias);

/// softmax(q k^T / sqrt(C)) v for heads wider than flash kernels take. q, k, v: [B, 1, L, C]. Returns the
/// same. Its workspace does not grow with L^2.
at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v);

}  // namespace wan
