// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The types that ggml quantizes weights to, in blocks of so many elements and bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace wan {

/// By ggml's numbers.
enum class GgmlType : uint32_t {
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23
};

/// How values of a type are stored.
struct BlockFormat {
  GgmlType type;
  std::string_view name;    // "Q4_K"
  int64_t elements, bytes;  // of a block
};

/// By its name or ggml's number; null where it is none of the above.
const BlockFormat *find_block_format(std::string_view name);
const BlockFormat *find_block_format(uint32_t ggml_type);

/// What so many blocks stand for, in float32: the same bits as gguf.quants.dequantize() of the gguf package
/// gives.
void dequantize_blocks(GgmlType type, const std::byte *blocks, int64_t count, float *out);

}  // namespace wan
