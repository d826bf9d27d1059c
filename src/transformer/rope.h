// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Rotary position embedding over time, rows and columns:
// diffusers.models.transformers.transformer_wan.WanRotaryPosEmbed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace wan {

/// Where tokens are in a video. Their order is frame, row, column.
struct TokenGrid {
  int64_t first_frame;  // of latents
  int64_t frames, rows, columns;

  int64_t tokens() const { return frames * rows * columns; }
};

/// Tables of one grid.
struct RotaryEmbedding {
  at::Tensor cos, sin;  // [L, 1, head_dim / 2] float32
};

/// Computed in float64 and rounded once, as Diffusers does. head_dim is split 44/42/42 where it is 128.
RotaryEmbedding rotary_embedding(int64_t head_dim, const TokenGrid &grid, at::Device device);

/// The same for frames at any places in time: what does not depend on these is made once.
class RotaryTables {
 public:
  RotaryTables(int64_t head_dim, int64_t rows, int64_t columns, at::Device device);
  /// positions: of each frame, unbounded.
  RotaryEmbedding operator()(const std::vector<double> &positions) const;

 private:
  const int64_t time_dim_;
  const RotaryEmbedding space_;  // of one frame's tokens, [L, (head_dim - time_dim) / 2]
};

}  // namespace wan
