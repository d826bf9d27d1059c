// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/linear.h"

#include <ATen/ATen.h>

namespace wan {

namespace {

/// As the checkpoint stores it, if that is in e4m3.
QuantizedWeight load_weight(const Weights &weights, at::IntArrayRef shape, WanQuantization quantization) {
  if (quantization == WAN_QUANTIZATION_NONE) return {weights("weight", shape), {}};
  if (const std::optional<ScaledFp8> stored = weights.fp8("weight", shape))
    return {stored->weight, stored->scale.expand({shape[0], 1}).contiguous().view(shape[0])};
  return quantize_weight(weights("weight", shape));
}

}  // namespace

Linear::Linear(const Weights &weights, int64_t in, int64_t out, WanQuantization quantization)
    : Linear(weights("bias", {out}), load_weight(weights, {out, in}, quantization)) {}

Product Linear::product(const Activations &x) const {
  if (quantized()) return {quantized_product(x, weight_, scale_, bias_.scalar_type()), bias_};
  return {at::linear(x.values, weight_, bias_), {}};
}

Activations Linear::gelu(const Activations &x) const {
  if (quantized()) return quantize_rows(product(x), /*applies_gelu=*/true);
  return gelu_linear(x.values, weight_, bias_);
}

}  // namespace wan
