// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/rotary_norm.h"

#include <ATen/ATen.h>

#include "ops/cpu/rotate.h"
#include "ops/kernels.h"
#include "ops/rows.h"

namespace wan {

namespace {

bool takes_rotate_cpu(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
  const auto takes = [](const at::Tensor &tensor) {
    return tensor.is_cpu() && tensor.scalar_type() == at::kFloat && tensor.is_contiguous();
  };
  return takes(x) && takes(cos) && takes(sin) && x.size(0) == 1;
}

/// x: [B, L, D]. Returns [B, L, heads, head_dim] in float32.
at::Tensor rotate(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
  if (takes_rotate_cpu(x, cos, sin)) {
    const at::Tensor heads = x.unflatten(-1, {-1, 2 * cos.size(-1)}), out = at::empty_like(heads);
    rotate_cpu(heads, cos, sin, out);
    return out;
  }
  const at::Tensor pairs = x.unflatten(-1, {-1, cos.size(-1), 2});
  const at::Tensor a = pairs.select(-1, 0), b = pairs.select(-1, 1);
  return at::stack({a * cos - b * sin, a * sin + b * cos}, -1).flatten(-2);
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
                           const at::Tensor &sin, double eps, bool quantizes, const at::Tensor &center) {
  return kernels::HeadsRmsNorm::call(x.values, optional(x.bias), weight, optional(cos), optional(sin), eps,
                                     quantizes, optional(center));
}

bool takes(const Product &x, const at::Tensor &weight) {
  return takes_rows(x.values) && takes_bias(x.bias, x.values) && takes_weight(weight, x.values);
}
bool takes(const Product &x, const at::Tensor &weight, const at::Tensor &cos, const at::Tensor &sin) {
  return takes(x, weight) && takes_table(cos, x.values) && takes_table(sin, x.values);
}

}  // namespace

at::Tensor heads_rms_norm(const Product &x, const at::Tensor &weight, double eps) {
  if (takes(x, weight)) return rms_norm_kernel(x, weight, {}, {}, eps, /*quantizes=*/false, {});
  return at::rms_norm(x.sum(), weight.sizes(), weight, eps);
}

at::Tensor rotary_rms_norm(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                           const at::Tensor &sin, double eps) {
  if (takes(x, weight, cos, sin)) return rms_norm_kernel(x, weight, cos, sin, eps, /*quantizes=*/false, {});
  const at::Tensor normed = heads_rms_norm(x, weight, eps);
  return rotate(normed, cos, sin).to(normed.scalar_type());
}

void rotate_heads(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin, const at::Tensor &out) {
  const at::Tensor rows = x.flatten(2);
  if (takes_rows(rows) && takes_table(cos, rows) && takes_table(sin, rows) && takes_rows(out.flatten(2)))
    kernels::RotateHeads::call(x, cos, sin, out);
  else if (takes_rotate_cpu(x, cos, sin) && out.is_contiguous())
    rotate_cpu(x, cos, sin, out);
  else
    out.copy_(rotate(rows, cos, sin));
}

/// The mean of some thousand of the tokens.
at::Tensor rotary_norm_center(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                              const at::Tensor &sin, double eps) {
  constexpr int64_t kTokens = 1024;
  // Odd, so that columns of all parities come in.
  const int64_t tokens = x.values.size(1), step = tokens / kTokens | 1;
  const auto some = [&](const at::Tensor &rows, int64_t dim) {
    return rows.slice(dim, 0, tokens, step).contiguous();
  };
  return rotary_rms_norm({some(x.values, 1), x.bias}, weight, some(cos, 0), some(sin, 0), eps)
      .flatten(0, 1)
      .mean({0}, /*keepdim=*/false, at::kFloat)
      .flatten();
}

at::Tensor fp8_rotary_rms_norm(const Product &x, const at::Tensor &weight, const at::Tensor &cos,
                               const at::Tensor &sin, double eps, const at::Tensor &center) {
  if (takes(x, weight, cos, sin))
    return rms_norm_kernel(x, weight, cos, sin, eps, /*quantizes=*/true, center);
  at::Tensor rotated = rotate(heads_rms_norm(x, weight, eps), cos, sin);
  if (center.defined()) rotated = rotated - center.view({rotated.size(2), rotated.size(3)});
  return rotated.to(at::kFloat8_e4m3fn);
}

}  // namespace wan
