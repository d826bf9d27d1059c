// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/modulation.h"

#include <ATen/ATen.h>

#include <vector>

#include "ops/kernels.h"
#include "ops/rows.h"

namespace wan {

namespace {

/// In float32 over the last dimension, without or with weight and bias; returns float32.
at::Tensor layer_norm(const at::Tensor &x, double eps, const at::Tensor &weight = {},
                      const at::Tensor &bias = {}) {
  return at::layer_norm(x.to(at::kFloat), {x.size(-1)}, weight, bias, eps);
}

/// x in e4m3, if it is to be.
Activations quantized(const at::Tensor &x, bool quantizes) {
  return quantizes ? quantize_rows(x) : Activations(x);
}

/// What `function` makes of each segment, one behind the other; it is handed the segment's number and a
/// function that cuts its tokens out of a tensor.
template <typename Function>
at::Tensor by_segment(int64_t tokens, at::IntArrayRef starts, Function function) {
  if (starts.size() == 1) return function(0, [](const at::Tensor &x) { return x; });
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < starts.size(); ++i) {
    const int64_t begin = starts[i], end = i + 1 < starts.size() ? starts[i + 1] : tokens;
    parts.push_back(function(static_cast<int64_t>(i),
                             [=](const at::Tensor &x) { return x.narrow(1, begin, end - begin); }));
  }
  return at::cat(parts, 1);
}

Activations layer_norm_kernel(const at::Tensor &x, const at::Tensor &scale, const at::Tensor &shift,
                              at::IntArrayRef starts, bool modulates, double eps, bool quantizes) {
  auto [values, row_scale] = kernels::LayerNorm::call(x, scale, shift, starts, modulates, eps, quantizes);
  return {values, row_scale};
}

at::Tensor residual_kernel(const at::Tensor &x, const Product &branch, const at::Tensor &gate,
                           at::IntArrayRef starts) {
  return kernels::GatedResidual::call(x, branch.values, optional(branch.bias), optional(gate), starts);
}

bool takes_branch(const at::Tensor &x, const Product &branch) {
  return takes_rows(x) && takes_rows(branch.values) && branch.values.sizes() == x.sizes() &&
         takes_bias(branch.bias, x);
}

}  // namespace

Activations modulated_norm(const at::Tensor &x, const at::Tensor &shift, const at::Tensor &scale, double eps,
                           bool quantizes, at::IntArrayRef starts) {
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, starts, /*modulates=*/true, eps, quantizes);
  const at::Tensor normed = layer_norm(x, eps);
  const auto modulate = [&](int64_t i, auto tokens) {
    return tokens(normed) * (scale.narrow(1, i, 1) + 1) + shift.narrow(1, i, 1);
  };
  return quantized(by_segment(x.size(1), starts, modulate).to(x.scalar_type()), quantizes);
}

Activations affine_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, double eps,
                        bool quantizes) {
  const at::Tensor scale = weight.view({1, 1, -1}), shift = bias.view({1, 1, -1});
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, kOneSegment, /*modulates=*/false, eps, quantizes);
  return quantized(layer_norm(x, eps, weight, bias).to(x.scalar_type()), quantizes);
}

at::Tensor gated_residual(const at::Tensor &x, const Product &branch, const at::Tensor &gate,
                          at::IntArrayRef starts) {
  if (takes_branch(x, branch) && takes_factor(gate, x)) return residual_kernel(x, branch, gate, starts);
  const at::Tensor wide = x.to(at::kFloat), addend = branch.sum();
  const auto add = [&](int64_t i, auto tokens) {
    return tokens(wide) + tokens(addend) * gate.narrow(1, i, 1);
  };
  return by_segment(x.size(1), starts, add).to(x.scalar_type());
}

at::Tensor residual(const at::Tensor &x, const Product &branch) {
  return takes_branch(x, branch) ? residual_kernel(x, branch, {}, kOneSegment) : x + branch.sum();
}

}  // namespace wan
