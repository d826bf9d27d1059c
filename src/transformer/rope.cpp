// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/rope.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

constexpr double kTheta = 10000.0;

/// Of the head's channels, those that turn with a row, or with a column; the rest turns with time.
int64_t space_dim(int64_t head_dim) {
  return 2 * (head_dim / 6);
}

/// Angles of one axis: [positions, dim / 2] float64.
at::Tensor angles(int64_t dim, const at::Tensor &positions) {
  const at::Tensor exponent = at::arange(0, dim, 2, at::kDouble) / static_cast<double>(dim);
  return at::outer(positions, at::reciprocal(at::pow(kTheta, exponent)));
}
at::Tensor angles(int64_t dim, int64_t first, int64_t length) {
  return angles(dim, at::arange(first, first + length, at::kDouble));
}

RotaryEmbedding tables(const at::Tensor &angles, at::Device device) {
  return {angles.cos().to(at::kFloat).to(device), angles.sin().to(at::kFloat).to(device)};
}

}  // namespace

RotaryEmbedding rotary_embedding(int64_t head_dim, const TokenGrid &grid, at::Device device) {
  const int64_t space_dim = wan::space_dim(head_dim), time_dim = head_dim - 2 * space_dim;
  const auto axis = [&](int64_t dim, int64_t first, int64_t length, int64_t position) {
    std::vector<int64_t> view = {1, 1, 1, dim / 2};
    view[static_cast<size_t>(position)] = length;
    return angles(dim, first, length).view(view).expand({grid.frames, grid.rows, grid.columns, dim / 2});
  };
  const at::Tensor all = at::cat({axis(time_dim, grid.first_frame, grid.frames, 0),
                                  axis(space_dim, 0, grid.rows, 1), axis(space_dim, 0, grid.columns, 2)},
                                 -1)
                             .reshape({grid.tokens(), 1, head_dim / 2});
  return tables(all, device);
}

namespace {

RotaryEmbedding space_tables(int64_t head_dim, int64_t rows, int64_t columns, at::Device device) {
  const int64_t dim = space_dim(head_dim);
  const at::Tensor y = angles(dim, 0, rows).unsqueeze(1).expand({rows, columns, dim / 2});
  const at::Tensor x = angles(dim, 0, columns).unsqueeze(0).expand({rows, columns, dim / 2});
  return tables(at::cat({y, x}, -1).flatten(0, 1), device);
}

/// time: [F, d], space: [L, e]. Returns [F * L, 1, d + e].
at::Tensor join(const at::Tensor &time, const at::Tensor &space) {
  const int64_t frames = time.size(0), tokens = space.size(0);
  return at::cat({time.unsqueeze(1).expand({frames, tokens, -1}),
                  space.unsqueeze(0).expand({frames, tokens, -1})},
                 -1)
      .flatten(0, 1)
      .unsqueeze(1);
}

}  // namespace

RotaryTables::RotaryTables(int64_t head_dim, int64_t rows, int64_t columns, at::Device device)
    : time_dim_(head_dim - 2 * space_dim(head_dim)), space_(space_tables(head_dim, rows, columns, device)) {}

RotaryEmbedding RotaryTables::operator()(const std::vector<double> &positions) const {
  const RotaryEmbedding time =
      tables(angles(time_dim_, at::tensor(positions, at::kDouble)), space_.cos.device());
  return {join(time.cos, space_.cos), join(time.sin, space_.sin)};
}

}  // namespace wan
