// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/modulation.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

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

Activations layer_norm_kernel(const at::Tensor &x, const at::Tensor &scale, const at::Tensor &shift,
                              bool modulates, double eps, bool quantizes) {
  static const auto operation =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("wan::layer_norm", "")
          .typed<std::tuple<at::Tensor, at::Tensor>(const at::Tensor &, const at::Tensor &,
                                                    const at::Tensor &, bool, double, bool)>();
  auto [values, row_scale] = operation.call(x, scale, shift, modulates, eps, quantizes);
  return {values, row_scale};
}

at::Tensor residual_kernel(const at::Tensor &x, const Product &branch, const at::Tensor &gate) {
  static const auto operation =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("wan::gated_residual", "")
          .typed<at::Tensor(const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &,
                            const std::optional<at::Tensor> &)>();
  return operation.call(x, branch.values, optional(branch.bias), optional(gate));
}

bool takes_branch(const at::Tensor &x, const Product &branch) {
  return takes_rows(x) && takes_rows(branch.values) && branch.values.sizes() == x.sizes() &&
         takes_bias(branch.bias, x);
}

}  // namespace

// The CUDA module registers its kernels.
TORCH_LIBRARY_FRAGMENT(wan, library) {
  library.def(
      "layer_norm(Tensor x, Tensor scale, Tensor shift, bool modulates, float eps, bool quantizes) -> "
      "(Tensor, "
      "Tensor)");
  library.def("gated_residual(Tensor x, Tensor branch, Tensor? bias, Tensor? gate) -> Tensor");
}

Activations modulated_norm(const at::Tensor &x, const at::Tensor &shift, const at::Tensor &scale, double eps,
                           bool quantizes) {
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, /*modulates=*/true, eps, quantizes);
  return quantized((layer_norm(x, eps) * (scale + 1) + shift).to(x.scalar_type()), quantizes);
}

Activations affine_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, double eps,
                        bool quantizes) {
  const at::Tensor scale = weight.view({1, 1, -1}), shift = bias.view({1, 1, -1});
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, /*modulates=*/false, eps, quantizes);
  return quantized(layer_norm(x, eps, weight, bias).to(x.scalar_type()), quantizes);
}

at::Tensor gated_residual(const at::Tensor &x, const Product &branch, const at::Tensor &gate) {
  if (takes_branch(x, branch) && takes_factor(gate, x)) return residual_kernel(x, branch, gate);
  return (x.to(at::kFloat) + branch.sum() * gate).to(x.scalar_type());
}

at::Tensor residual(const at::Tensor &x, const Product &branch) {
  return takes_branch(x, branch) ? residual_kernel(x, branch, {}) : x + branch.sum();
}

}  // namespace wan
