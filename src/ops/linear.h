// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Products of activations and weights, in the model's dtype or in e4m3 (FP8).
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace wan {

/// What a product takes: [B, L, D] in the model's dtype, or in e4m3 with a scale for each row.
struct Activations {
  Activations(at::Tensor values, at::Tensor scale = {})  // implicit: most are as they are
      : values(std::move(values)), scale(std::move(scale)) {}

  at::Tensor values;
  at::Tensor scale;  // [B * L, 1] float32, undefined unless the values are e4m3
};

/// What a product gives: [B, L, D]. A product in e4m3 leaves its bias to what comes after it, for with a bias
/// it is a quarter slower.
struct Product {
  Product(at::Tensor values, at::Tensor bias = {})  // implicit: any tensor can stand for one
      : values(std::move(values)), bias(std::move(bias)) {}

  at::Tensor values;
  at::Tensor bias;  // still to be added; undefined: there is none

  at::Tensor sum() const;
};

/// x or, with GELU (by tanh), gelu(x), in e4m3: the largest magnitude of each row becomes 448.
Activations quantize_rows(const Product &x, bool applies_gelu = false);

/// A weight [out, in] in e4m3, and the scale of each of its rows, [out] float32.
struct QuantizedWeight {
  at::Tensor weight, scale;
};
/// Without values where the weight has none (device Meta).
QuantizedWeight quantize_weight(const at::Tensor &weight);

/// x W^T for activations and a weight in e4m3, rounded to dtype. scale: [out]. On a GPU dtype is bfloat16,
/// and the GPU must have FP8.
at::Tensor quantized_product(const Activations &x, const at::Tensor &weight, const at::Tensor &scale,
                             at::ScalarType dtype);

/// GELU(x W^T + bias), by tanh.
at::Tensor gelu_linear(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias);

}  // namespace wan
