// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/linear.h"

#include <ATen/ATen.h>

#include "ops/kernels.h"
#include "ops/rows.h"

namespace wan {

namespace {

/// Of the last dimension. Returns the values and the scale, [..., 1].
std::pair<at::Tensor, at::Tensor> quantize(const at::Tensor &x) {
  const at::Tensor largest = x.abs().amax(-1, /*keepdim=*/true).to(at::kFloat).clamp_min(kLeastRowMax);
  const at::Tensor values = x.to(at::kFloat) * (kLargestE4m3 / largest);
  return {values.to(at::kFloat8_e4m3fn), largest / kLargestE4m3};
}

}  // namespace

at::Tensor Product::sum() const {
  return bias.defined() ? values + bias : values;
}

Activations quantize_rows(const Product &x, bool applies_gelu) {
  if (!takes_rows(x.values, kMaxWideRowChannels) || !takes_bias(x.bias, x.values)) {
    const at::Tensor sum = x.sum();
    auto [values, scale] = quantize(applies_gelu ? at::gelu(sum, "tanh") : sum);
    return {values, scale.view({-1, 1})};
  }
  auto [values, scale] = kernels::QuantizeRows::call(x.values, optional(x.bias), applies_gelu);
  return {values, scale};
}

QuantizedWeight quantize_weight(const at::Tensor &weight) {
  if (weight.is_meta())
    return {at::empty_like(weight, at::kFloat8_e4m3fn),
            at::empty({weight.size(0)}, weight.options().dtype(at::kFloat))};
  auto [values, scale] = quantize(weight);
  return {values, scale.squeeze(-1)};
}

/// The tensor cores add up in some 13 bits, unless told to pass their sums on to float32 every few products,
/// which is a quarter slower. Over so many products their own error stays far below that of e4m3.
constexpr int64_t kFewProducts = 8192;

at::Tensor quantized_product(const Activations &x, const at::Tensor &weight, const at::Tensor &scale,
                             at::ScalarType dtype) {
  if (x.values.is_cpu()) {
    const at::Tensor rows = x.values.flatten(0, -2).to(at::kFloat) * x.scale;
    const at::Tensor product = at::linear(rows, weight.to(at::kFloat) * scale.unsqueeze(-1));
    return product.to(dtype).view({x.values.size(0), x.values.size(1), weight.size(0)});
  }
  const at::Tensor product = at::_scaled_mm(x.values.flatten(0, -2), weight.t(), x.scale, scale.unsqueeze(0),
                                            /*bias=*/{}, /*scale_result=*/{}, dtype,
                                            /*use_fast_accum=*/weight.size(1) <= kFewProducts);
  return product.view({x.values.size(0), x.values.size(1), weight.size(0)});
}

at::Tensor gelu_linear(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
  if (!x.is_cuda() || x.scalar_type() != at::kBFloat16) return at::gelu(at::linear(x, weight, bias), "tanh");
  // cuBLAS applies it to the sums before they are rounded.
  return at::_addmm_activation(bias, x.flatten(0, -2), weight.t(), /*beta=*/1, /*alpha=*/1, /*use_gelu=*/true)
      .view({x.size(0), x.size(1), weight.size(0)});
}

}  // namespace wan
