// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The picture's half of CLIP, as transformers.CLIPVisionModel computes it: the layers up to the last but one,
// which is what Wan's transformers take.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"

namespace wan {

class CLIPVisionModel {
 public:
  /// weights: at the root of the component.
  CLIPVisionModel(const CLIPVisionConfig &config, const Weights &weights);

  /// Prefixes of the tensors that are not needed: the last layer and what follows it.
  static std::vector<std::string> unused_tensors(const CLIPVisionConfig &config);

  /// pixels: [B, 3, image_size, image_size] as clip_pixels() gives them. Returns [B, 1 + tokens, hidden_size]
  /// in the weights' dtype: Transformers' hidden_states[-2], the class's token first.
  at::Tensor operator()(const at::Tensor &pixels, const RunContext &context) const;

 private:
  struct Norm {
    at::Tensor weight, bias;
    double eps;
    at::Tensor operator()(const at::Tensor &x) const;
  };
  struct Linear {
    at::Tensor weight, bias;
    at::Tensor operator()(const at::Tensor &x) const;
  };
  struct Layer {
    Norm layer_norm1, layer_norm2;
    Linear q_proj, k_proj, v_proj, out_proj, fc1, fc2;
  };

  static Linear linear(const Weights &weights, int64_t in, int64_t out);
  Norm norm(const Weights &weights) const;
  Layer layer(const Weights &weights) const;
  /// [B, 1 + tokens, hidden_size].
  at::Tensor embed(const at::Tensor &pixels) const;
  at::Tensor attend(const Layer &layer, const at::Tensor &x) const;

  const CLIPVisionConfig config_;
  const at::Tensor class_embedding_, patch_embedding_, position_embedding_;
  const Norm pre_layrnorm_;  // Transformers spells it so
  std::vector<Layer> layers_;
};

}  // namespace wan
