// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A small decoder in place of the VAE's, for previews and for real time: taew2_1 (16 latent channels) and
// taew2_2 (48) of TAEHV (https://github.com/madebyollin/taehv).
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "checkpoint/tiny_decoder_config.h"
#include "checkpoint/weights.h"
#include "ops/conv.h"
#include "vae/latent_decoder.h"

namespace wan {

/// Three convolutions that see a frame and the one before it (TAEHV's MemBlock). Activations are [T, H, W,
/// C].
class MemBlock {
 public:
  MemBlock(const Weights &weights, int64_t channels);
  at::Tensor operator()(const at::Tensor &x, StreamState &state) const;

 private:
  struct Conv {
    at::Tensor weight, bias;
  };
  std::vector<Conv> convs_;
};

class TinyDecoder : public LatentDecoder {
 public:
  TinyDecoder(const TinyDecoderConfig &config, const Weights &weights);

  at::Tensor decode_next(const at::Tensor &latent, StreamState &state,
                         const RunContext &context) const override;
  uint64_t decode_bytes(int64_t height, int64_t width) const override;

 private:
  /// Blocks at one size, which then becomes twice as large.
  struct Stage {
    std::vector<MemBlock> blocks;
    at::Tensor grow;  // [frames * C, C]: a frame becomes so many (TGrow)
    ConvWeight upsample;
  };

  at::Tensor grow_frames(const at::Tensor &x, const Stage &stage) const;

  const TinyDecoderConfig config_;
  const at::ScalarType dtype_;
  const at::Tensor in_weight_, in_bias_;
  std::vector<Stage> stages_;
  const at::Tensor out_weight_, out_bias_;
};

}  // namespace wan
