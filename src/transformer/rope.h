// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rotary position embedding over time, rows and columns:
// diffusers.models.transformers.transformer_wan.WanRotaryPosEmbed.
#pragma once

#include <ATen/core/Tensor.h>

namespace wan {

/// Tables of one video size. Token order is frame, row, column.
struct RotaryEmbedding {
  at::Tensor cos, sin;  // [L, 1, head_dim / 2] float32
};

/// Computed in float64 and rounded once, as Diffusers does. head_dim is split 44/42/42 where it is 128.
RotaryEmbedding rotary_embedding(int64_t head_dim, int64_t frames, int64_t rows, int64_t columns,
                                 at::Device device);

}  // namespace wan
