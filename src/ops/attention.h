// Attention: the transformer's, with many heads, and the Wan VAE's, with one wide one.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// softmax(q k^T / sqrt(head_dim)) v. q: [B, Lq, heads, head_dim]; k, v: [B, Lk, heads, head_dim]. Returns
/// [B, Lq, heads, head_dim].
at::Tensor attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v);

/// softmax(q k^T / sqrt(C)) v for heads wider than flash kernels take. q, k, v: [B, 1, L, C]. Returns the
/// same. Its workspace does not grow with L^2.
at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v);

}  // namespace wan
