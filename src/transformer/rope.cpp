// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/rope.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

constexpr double kTheta = 10000.0;

/// Angles of one axis: [length, dim / 2] float64.
at::Tensor angles(int64_t dim, int64_t first, int64_t length) {
  const at::Tensor exponent = at::arange(0, dim, 2, at::kDouble) / static_cast<double>(dim);
  return at::outer(at::arange(first, first + length, at::kDouble), at::reciprocal(at::pow(kTheta, exponent)));
}

}  // namespace

RotaryEmbedding rotary_embedding(int64_t head_dim, const TokenGrid &grid, at::Device device) {
  const int64_t space_dim = 2 * (head_dim / 6), time_dim = head_dim - 2 * space_dim;
  const auto axis = [&](int64_t dim, int64_t first, int64_t length, int64_t position) {
    std::vector<int64_t> view = {1, 1, 1, dim / 2};
    view[static_cast<size_t>(position)] = length;
    return angles(dim, first, length).view(view).expand({grid.frames, grid.rows, grid.columns, dim / 2});
  };
  const at::Tensor all = at::cat({axis(time_dim, grid.first_frame, grid.frames, 0),
                                  axis(space_dim, 0, grid.rows, 1), axis(space_dim, 0, grid.columns, 2)},
                                 -1)
                             .reshape({grid.tokens(), 1, head_dim / 2});
  return {all.cos().to(at::kFloat).to(device), all.sin().to(at::kFloat).to(device)};
}

}  // namespace wan
