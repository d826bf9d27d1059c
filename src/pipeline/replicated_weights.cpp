// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/replicated_weights.h"

#include <ATen/ATen.h>

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

std::optional<BlockMatrix> ReplicatedWeights::load_blocks(const std::string &name, at::IntArrayRef shape) {
  std::vector<at::Tensor> read;
  if (reads())
    if (const std::optional<BlockMatrix> stored = source_.load_blocks(name, shape))
      read = {stored->blocks, at::full({1}, static_cast<int64_t>(stored->format->type),
                                       stored->blocks.options().dtype(at::kLong))};
  const std::vector<at::Tensor> copies = group_.broadcast(read);
  if (copies.empty()) return std::nullopt;
  return BlockMatrix{copies[0], find_block_format(static_cast<uint32_t>(copies[1].item<int64_t>()))};
}

}  // namespace wan
