// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A layer of the transformer: the matrix product with its bias, quantized or not.
#pragma once

#include <ATen/core/Tensor.h>

#include "checkpoint/weights.h"
#include "ops/linear.h"
#include "wan/engine.h"

namespace wan {

/// A matrix and a bias. Quantized, the matrix is in e4m3 with a scale for each output channel; or it is in
/// the blocks of a GGUF file, and expanded for each product.
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
  /// The matrix in the dtype of the bias.
  at::Tensor weight() const;

  at::Tensor bias_;
  at::Tensor weight_;                    // [out, in]; in blocks: [out, bytes of a row]
  at::Tensor scale_;                     // [out] float32, undefined unless quantized
  const BlockFormat *blocks_ = nullptr;  // of the matrix, if it is in blocks
};

}  // namespace wan
