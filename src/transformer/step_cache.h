// SPDX-License-Identifier: LGPL-2.1-or-later
//
// First-block cache: diffusers.hooks.first_block_cache, after ParaAttention's.
#pragma once

#include <ATen/core/Tensor.h>

#include "parallel/sequence_group.h"

namespace wan {

/// What one expert's forwards of one prompt keep for the next ones: where the first block adds about the same
/// to its input as in the last forward that went through all blocks, what the others added then is added
/// again.
class StepCache {
 public:
  /// threshold: the relative change (of mean magnitudes) of what the first block adds, up to which that is
  /// done.
  explicit StepCache(double threshold) : threshold_(threshold) {}

  /// After the first block, whose input and output these are, of the rank's own tokens: whether the others
  /// are left out, which all ranks of the group decide alike. Waits for the GPU.
  bool skips_rest(const at::Tensor &in, const at::Tensor &out, const SequenceGroup &group = {});
  /// After the last block that ran: what the last of all gives, or stands for it.
  at::Tensor finish(const at::Tensor &out);

  /// Whether the last forward left blocks out.
  bool skipped() const { return skipped_; }

 private:
  double threshold_;
  at::Tensor first_residual_, rest_residual_;  // of the last whole forward
  at::Tensor first_out_;                       // of a whole forward that is under way
  bool skipped_ = false;
};

}  // namespace wan
