#include "ops/rotary_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/rows.h"

namespace wan {

namespace {

/// x: [B, L, heads, head_dim].
at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, at::ScalarType dtype) {
  const at::Tensor pairs = x.unflatten(-1, {-1, 2});
  const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return at::stack({a * cos - b * sin, a * sin + b * cos}, -1).flatten(-2).to(dtype);
}

/// [L, 1, head_dim / 2] with whole vectors of pairs.
bool takes_table(const at::Tensor &table, const at::Tensor &x) {
  return table.device() == x.device() && table.scalar_type() == at::kFloat && table.is_contiguous() &&
         is_aligned(table) && table.dim() == 3 && table.size(0) == x.size(1) && table.size(1) == 1 &&
         2 * table.size(2) % kRowVector == 0 && x.size(2) % (2 * table.size(2)) == 0;
}

bool takes_weight(const at::Tensor &weight, const at::Tensor &x) {
  return weight.device() == x.device() && weight.scalar_type() == x.scalar_type() && weight.is_contiguous() &&
         is_aligned(weight);
}

at::Tensor rms_norm_kernel(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps, bool quantizes) {
  static const auto operation = c10::Dispatcher::singleton()
                                    .findSchemaOrThrow("wan::heads_rms_norm", "")
                                    .typed<at::Tensor(const at::Tensor &, const std::optional<at::Tensor> &,
                                                      const at::Tensor &, const std::optional<at::Tensor> &,
                                                      const std::optional<at::Tensor> &, double, bool)>();
  return operation.call(x.values, optional(x.bias), weight, optional(cos), optional(sin), eps, quantizes);
}

bool takes(const Product &x, const at::Tensor &weight) {
  return takes_rows(x.values) && takes_bias(x.bias, x.values) && takes_weight(weight, x.values);
}

}  // namespace

// The CUDA module registers its kernel.
TORCH_LIBRARY_FRAGMENT(wan, library) {
  library.def(
      "heads_rms_norm(Tensor x, Tensor? bias, Tensor weight, Tensor? cos, Tensor? sin, float eps, bool "
      "quantizes) -> Tensor");
}

at::Tensor heads_rms_norm(const Product &x, const at::Tensor &weight, double eps) {
  if (takes(x, weight)) return rms_norm_kernel(x, weight, {}, {}, eps, /*quantizes=*/false);
  return at::rms_norm(x.sum(), weight.sizes(), weight, eps);
}

at::Tensor rotary_rms_norm(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps, bool quantizes) {
  if (takes(x, weight) && takes_table(cos, x.values) && takes_table(sin, x.values))
    return rms_norm_kernel(x, weight, cos, sin, eps, quantizes);
  const at::Tensor normed = heads_rms_norm(x, weight, eps);
  return rotate(normed.unflatten(-1, {-1, 2 * cos.size(-1)}), cos, sin,
                quantizes ? at::kFloat8_e4m3fn : normed.scalar_type());
}

}  // namespace wan
