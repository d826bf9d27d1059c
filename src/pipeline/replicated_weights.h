// SPDX-License-Identifier: LGPL-2.1-or-later
//
// One source of weights for networks on several devices.
#pragma once

#include <optional>

#include "checkpoint/weights.h"
#include "parallel/sequence_group.h"

namespace wan {

/// What a rank loads from while all ranks of its group load the same network: the first one reads each
/// tensor, and the others get copies on their devices.
class ReplicatedWeights : public WeightSource {
 public:
  /// source: the first rank's; the others do not touch it.
  ReplicatedWeights(WeightSource &source, const SequenceGroup &group) : source_(source), group_(group) {}

  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override;
  std::optional<ScaledFp8> load_fp8(const std::string &name, at::IntArrayRef shape) override;
  std::optional<BlockMatrix> load_blocks(const std::string &name, at::IntArrayRef shape) override;

 private:
  bool reads() const { return group_.rank() == 0; }

  WeightSource &source_;
  const SequenceGroup group_;
};

}  // namespace wan
