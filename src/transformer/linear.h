// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A layer of the transformer: the matrix product with its bias, quantized or not.
#pragma once

#include <ATen/core/Tensor.h>

#include "checkpoint/weights.h"
#include "ops/linear.h"
#include "wan/engine.h"

namespace wan {

/// A matrix and a bias. Quantized, the matrix is in e4m3 with a scale for each output channel.
class Linear {
 public:
  Linear(const Weights &weights, int64_t in, int64_t out,
         WanQuantization quantization = WAN_QUANTIZATION_NONE);

  at::Tensor operator()(const at::Tensor &x) const { return product(input(x)).sum(); }
  /// The steps of it, where a kernel before or after takes over a part: what product() takes of x, and the
  /// product.
  Activations input(const at::Tensor &x) const { return quantized() ? quantize_rows(x) : Activations(x); }
  Product product(const Activations &x) const;
  /// gelu(product), as the input of another that is quantized if this one is.
  Activations gelu(const Activations &x) const;

  bool quantized() const { return scale_.defined(); }

  /// Calls function(at::Tensor &) for each of the weights, also for undefined ones; likewise below. For
  /// BlockStore, which moves them.
  template <typename Function>
  void for_each_tensor(Function function) {
    for (at::Tensor *tensor : {&weight_, &bias_, &scale_}) function(*tensor);
  }

 private:
  Linear(at::Tensor bias, QuantizedWeight weight)
      : weight_(std::move(weight.weight)), bias_(std::move(bias)), scale_(std::move(weight.scale)) {}

  at::Tensor weight_, bias_;
  at::Tensor scale_;  // [out] float32, undefined unless quantized
};

}  // namespace wan
