// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/replicated_weights.h"

#include <vector>

namespace wan {

at::Tensor ReplicatedWeights::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  std::vector<at::Tensor> read;
  if (reads()) read.push_back(source_.load(name, shape, dtype));
  return group_.broadcast(read).front();
}

std::optional<ScaledFp8> ReplicatedWeights::load_fp8(const std::string &name, at::IntArrayRef shape) {
  std::vector<at::Tensor> read;
  if (reads())
    if (const std::optional<ScaledFp8> stored = source_.load_fp8(name, shape))
      read = {stored->weight, stored->scale};
  const std::vector<at::Tensor> copies = group_.broadcast(read);
  if (copies.empty()) return std::nullopt;
  return ScaledFp8{copies[0], copies[1]};
}

}  // namespace wan
