// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/linear.h"

#include <ATen/ATen.h>

#include "ops/dequantize.h"

namespace wan {

namespace {

/// As the checkpoint stores it, if that is in e4m3.
QuantizedWeight load_e4m3(const Weights &weights, at::IntArrayRef shape) {
  if (const std::optional<ScaledFp8> stored = weights.fp8("weight", shape))
    return {stored->weight, stored->scale.expand({shape[0], 1}).contiguous().view(shape[0])};
  return quantize_weight(weights("weight", shape));
}

}  // namespace

Linear::Linear(const Weights &weights, int64_t in, int64_t out, WanQuantization quantization)
    : bias_(weights("bias", {out})) {
  const std::vector<int64_t> shape = {out, in};
  if (quantization == WAN_QUANTIZATION_FP8) {
    QuantizedWeight loaded = load_e4m3(weights, shape);
    weight_ = std::move(loaded.weight);
    scale_ = std::move(loaded.scale);
    return;
  }
  BlockMatrix stored;
  if (quantization == WAN_QUANTIZATION_STORED)
    stored = weights.blocks("weight", shape).value_or(BlockMatrix());
  blocks_ = stored.format;
  weight_ = blocks_ ? std::move(stored.blocks) : weights("weight", shape);
}

at::Tensor Linear::weight() const {
  if (!blocks_) return weight_;
  return dequantize(weight_.flatten(), *blocks_, bias_.scalar_type()).view({weight_.size(0), -1});
}

Product Linear::product(const Activations &x) const {
  if (quantized()) return {quantized_product(x, weight_, scale_, bias_.scalar_type()), bias_};
  return {at::linear(x.values, weight(), bias_), {}};
}

Activations Linear::gelu(const Activations &x) const {
  if (quantized()) return quantize_rows(product(x), /*applies_gelu=*/true);
  return gelu_linear(x.values, weight(), bias_);
}

}  // namespace wan
