#include "ops/rotary_norm.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "ops/rows.h"

namespace wan {

namespace {

/// x: [B, L, heads, head_dim].
at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
  const at::Tensor pairs = x.unflatten(-1, {-1, 2});
  const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return at::stack({a * cos - b * sin, a * sin + b * cos}, -1).flatten(-2).to(x.scalar_type());
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

}  // namespace

// The CUDA module registers its kernel.
TORCH_LIBRARY_FRAGMENT(wan, library) {
  library.def("rotary_rms_norm(Tensor x, Tensor weight, Tensor cos, Tensor sin, float eps) -> Tensor");
}

at::Tensor rotary_rms_norm(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps) {
  if (!takes_rows(x) || !takes_weight(weight, x) || !takes_table(cos, x) || !takes_table(sin, x)) {
    const at::Tensor normed = at::rms_norm(x, weight.sizes(), weight, eps);
    return rotate(normed.unflatten(-1, {-1, 2 * cos.size(-1)}), cos, sin);
  }
  static const auto operation = c10::Dispatcher::singleton()
                                    .findSchemaOrThrow("wan::rotary_rms_norm", "")
                                    .typed<at::Tensor(const at::Tensor &, const at::Tensor &,
                                                      const at::Tensor &, const at::Tensor &, double)>();
  return operation.call(x, weight, cos, sin, eps);
}

}  // namespace wan
