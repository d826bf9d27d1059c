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

at::Tensor layer_norm_kernel(const at::Tensor &x, const at::Tensor &scale, const at::Tensor &shift,
                             bool modulates, double eps) {
  static const auto operation =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("wan::layer_norm", "")
          .typed<at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, bool, double)>();
  return operation.call(x, scale, shift, modulates, eps);
}

}  // namespace

// The CUDA module registers its kernels.
TORCH_LIBRARY_FRAGMENT(wan, library) {
  library.def("layer_norm(Tensor x, Tensor scale, Tensor shift, bool modulates, float eps) -> Tensor");
  library.def("gated_residual(Tensor x, Tensor branch, Tensor gate) -> Tensor");
}

at::Tensor modulated_norm(const at::Tensor &x, const at::Tensor &shift, const at::Tensor &scale, double eps) {
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, /*modulates=*/true, eps);
  return (layer_norm(x, eps) * (scale + 1) + shift).to(x.scalar_type());
}

at::Tensor affine_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, double eps) {
  const at::Tensor scale = weight.view({1, 1, -1}), shift = bias.view({1, 1, -1});
  if (takes_rows(x) && takes_factor(shift, x) && takes_factor(scale, x))
    return layer_norm_kernel(x, scale, shift, /*modulates=*/false, eps);
  return layer_norm(x, eps, weight, bias).to(x.scalar_type());
}

at::Tensor gated_residual(const at::Tensor &x, const at::Tensor &branch, const at::Tensor &gate) {
  if (!takes_rows(x) || !takes_rows(branch) || branch.sizes() != x.sizes() || !takes_factor(gate, x))
    return (x.to(at::kFloat) + branch * gate).to(x.scalar_type());
  static const auto operation =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("wan::gated_residual", "")
          .typed<at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &)>();
  return operation.call(x, branch, gate);
}

}  // namespace wan
