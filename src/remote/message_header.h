// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a message says of itself before its tensors' bytes: JSON from another host, read without LibTorch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_file.h"

namespace wan {

constexpr size_t kMaxTensors = 8;
constexpr size_t kMaxDimensions = 6;

struct TensorDescription {
  std::string dtype;  // F32 or BF16
  std::vector<int64_t> shape;
  uint64_t bytes;
};

struct MessageHeader {
  std::string type;
  Json values;  // an object
  std::vector<std::optional<TensorDescription>> tensors;
};

/// source: who sent it, in errors. Throws wan::Error (WAN_INVALID) where it is no header, or describes more
/// than so many bytes of tensors.
MessageHeader parse_message_header(std::string_view text, uint64_t tensor_bytes, const std::string &source);

}  // namespace wan
