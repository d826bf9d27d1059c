// SPDX-License-Identifier: LGPL-2.1-or-later
//
// UMT5 encoder, as transformers.models.umt5.modeling_umt5.UMT5EncoderModel computes it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "run_context.h"

namespace wan {

class UMT5EncoderModel {
 public:
  UMT5EncoderModel(const TextEncoderConfig &config, const Weights &weights);

  /// ids: [B, L] int64 on the model's device; mask: [B, L], 1 where there is a token and 0 where there is
  /// padding. Returns [B, L, d_model] in the weights' dtype. Rows of padding hold no meaning.
  at::Tensor operator()(const at::Tensor &ids, const at::Tensor &mask, const RunContext &context) const;

 private:
  struct Block {
    at::Tensor attention_norm, q, k, v, o, relative_attention_bias;
    at::Tensor feed_forward_norm, wi_0, wi_1, wo;
  };

  at::Tensor norm(const at::Tensor &x, const at::Tensor &weight) const;
  at::Tensor attention(const Block &block, const at::Tensor &x, const at::Tensor &buckets,
                       const at::Tensor &mask_bias) const;
  at::Tensor feed_forward(const Block &block, const at::Tensor &x) const;

  const TextEncoderConfig config_;
  const at::Tensor shared_;
  std::vector<Block> blocks_;
  const at::Tensor final_layer_norm_;
};

}  // namespace wan
