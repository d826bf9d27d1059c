// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Keys and values of a causal model's earlier frames.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "checkpoint/config.h"
#include "transformer/frame_window.h"
#include "transformer/rope.h"

namespace wan {

/// [B, L, heads, head_dim].
struct KeyValue {
  at::Tensor key, value;
};

/// Of one network. A frame's keys and values stay in their slot from when they are written until another
/// frame takes it: nothing is moved, as attention does not care for the order of keys. What is where, a
/// KeyPlan says; the host waits for nothing.
class KeyValueCache {
 public:
  /// For `slots` frames of rows x columns tokens, and so many of the network's heads. With keeps_unrotated
  /// the positions of what is remembered may change, and keys are kept a second time, as they were before
  /// they were rotated.
  KeyValueCache(const TransformerConfig &config, int64_t heads, int64_t slots, int64_t rows, int64_t columns,
                bool keeps_unrotated, at::ScalarType dtype, at::Device device);

  /// Bytes that such a cache takes.
  static uint64_t bytes(const TransformerConfig &config, int64_t slots, int64_t rows, int64_t columns,
                        bool keeps_unrotated, at::ScalarType dtype);

  /// A pass over all layers begins.
  void begin(KeyPlan plan);
  /// The tables for the pass's tokens.
  const RotaryEmbedding &rotary() const { return rotary_; }
  bool keeps_unrotated() const { return !unrotated_.empty(); }
  /// Takes the keys and values of the pass's tokens, [1, L, heads, head_dim], and returns all that these see.
  /// unrotated: the keys before they were rotated, where these are kept.
  KeyValue extend(size_t layer, const KeyValue &own, const at::Tensor &unrotated);

 private:
  /// Slots that follow each other, and as many frames of the pass, or tables, from `first` on.
  struct Run {
    int64_t slot, first, frames;
  };

  at::Tensor slots(const at::Tensor &storage, const Run &run) const;
  void write(const at::Tensor &storage, const at::Tensor &own) const;
  void rotate_moved(size_t layer) const;
  at::Tensor seen(const at::Tensor &storage) const;
  void plan_writes(const KeyPlan &plan);
  void plan_moves(const KeyPlan &plan);
  void plan_reads(const KeyPlan &plan);

  const int64_t tokens_;  // of a frame
  const RotaryTables tables_;
  std::vector<at::Tensor> keys_, values_, unrotated_;  // of each layer, [1, slots * tokens, heads, head_dim]
  std::vector<double> rotated_;                        // the position that the key of each slot stands at
  // Of the pass that is under way.
  std::vector<double> positions_;
  RotaryEmbedding rotary_;
  std::vector<Run> writes_, moves_;
  RotaryEmbedding moved_;    // tables for moves_
  int64_t seen_slots_ = 0;   // the first so many are seen,
  at::Tensor seen_indices_;  // or these, where it is defined
};

}  // namespace wan
