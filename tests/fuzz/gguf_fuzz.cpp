// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A GGUF file. What it accepts must lie within the file, and any bytes are blocks that stand for values.
#include "checkpoint/gguf.h"

#include <cstdlib>
#include <vector>

#include "fuzz.h"
#include "ops/ggml_types.h"

namespace {

void dequantize(const wan::BlockFormat &format, std::string_view bytes) {
  const auto count = static_cast<int64_t>(bytes.size()) / format.bytes;
  std::vector<float> values(static_cast<size_t>(count * format.elements));
  wan::dequantize_blocks(format.type, reinterpret_cast<const std::byte *>(bytes.data()), count,
                         values.data());
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  const auto read = [input](uint64_t offset, size_t size) {
    if (offset > input.size() || size > input.size() - offset) std::abort();
    return std::string(input.substr(offset, size));
  };
  const TensorHeader header = parse_gguf(read, input.size(), "input");
  for (const auto &[name, entry] : header.tensors) {
    if (entry.begin > entry.end || header.data_begin + entry.end > input.size()) std::abort();
    if (const BlockFormat *format = find_block_format(entry.dtype))
      dequantize(*format, input.substr(header.data_begin + entry.begin, entry.end - entry.begin));
  }
}
