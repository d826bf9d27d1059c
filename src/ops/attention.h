// Attention with one wide head, as the Wan VAE's.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// softmax(q k^T / sqrt(C)) v for heads wider than flash kernels take. q, k, v: [B, 1, L, C]. Returns the
/// same. Its workspace does not grow with L^2.
at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v);

}  // namespace wan
