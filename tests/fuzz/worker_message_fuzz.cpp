// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a worker reads of a message from another host before it takes memory for the tensors.
#include <cstdlib>

#include "fuzz.h"
#include "remote/message_header.h"

void wan::fuzz::run(std::string_view input) {
  constexpr uint64_t kLimit = 1 << 20;
  const MessageHeader header = parse_message_header(input, kLimit, "input");
  uint64_t bytes = 0;
  for (const auto &tensor : header.tensors)
    if (tensor) bytes += tensor->bytes;
  if (bytes > kLimit || header.tensors.size() > kMaxTensors || !header.values.is_object()) std::abort();
}
