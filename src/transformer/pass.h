// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What one forward of the denoiser is given beside the latents.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/sequence_group.h"
#include "run_context.h"
#include "transformer/attention.h"
#include "transformer/kv_cache.h"
#include "transformer/rope.h"
#include "transformer/step_cache.h"

namespace wan {

class WanTransformer3DModel;

/// Tokens that follow each other and have the same timestep.
struct TimeSegment {
  int64_t first_token;
  double timestep;  // in [0, 1000]
};

/// What the denoiser makes of the timesteps of a pass.
struct EncodedTimes {
  at::Tensor time;        // [S, D], of each segment
  at::Tensor modulation;  // [1, S, 6, D]
};

/// The segments that tokens which follow each other lie in.
struct SegmentRange {
  int64_t first, count;
  std::vector<int64_t> starts;  // the first of the tokens in each, from 0 on
};
SegmentRange segments_of(const std::vector<TimeSegment> &times, const Share &tokens);

/// What the denoiser keeps of a prompt, and of pictures, for a whole run.
struct EncodedContext {
  at::Tensor text;                   // [B, 512, D]
  at::Tensor image;                  // [B, L, D]; undefined where the model sees no pictures
  std::vector<CrossContext> blocks;  // of each block, undefined until its first forward

  /// Takes over the pictures' keys and values of another prompt's forward, the same tensors.
  void share_pictures(const EncodedContext &other) {
    for (size_t i = 0; i < blocks.size(); ++i)
      if (!blocks[i].image.key.defined()) blocks[i].image = other.blocks[i].image;
  }
  /// Takes over the prompt's keys and values of another network, the same tensors.
  void share_text(const EncodedContext &other) {
    for (size_t i = 0; i < blocks.size(); ++i)
      if (other.blocks[i].text.key.defined()) blocks[i].text = other.blocks[i].text;
  }
};

/// The same for all ranks of a group, but that each has what it needs on its own device.
struct Pass {
  const RotaryEmbedding &rotary;   // for the places of all tokens
  std::vector<TimeSegment> times;  // one to kMaxSegments, the first from token 0 on
  EncodedContext &context;
  const RunContext &run;
  StepCache *cache = nullptr;  // with one, blocks may be left out
  /// Whose forward follows this one, so that its first blocks come in time; null: the same model's. Where
  /// that does not come true, they come a little later.
  const WanTransformer3DModel *next = nullptr;
  const EncodedTimes *encoded_times = nullptr;  // what encode() made of `times`; null: it is made anew
  KeyValueCache *keys = nullptr;                // of earlier frames, where the model is causal
  SequenceGroup group = {};                     // who computes the tokens together
  /// Nothing is predicted: the pass only leaves keys and values in the cache.
  bool remembers_only = false;
};

}  // namespace wan
