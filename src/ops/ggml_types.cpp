// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/ggml_types.h"

#include <algorithm>
#include <iterator>

#include "ops/ggml_blocks.h"

namespace wan {

namespace {

template <typename Block>
constexpr BlockFormat format(std::string_view name) {
  return {Block::kType, name, Block::kElements, sizeof(Block)};
}

constexpr BlockFormat kFormats[] = {
    format<ggml::Q4_0>("Q4_0"), format<ggml::Q4_1>("Q4_1"),     format<ggml::Q5_0>("Q5_0"),
    format<ggml::Q5_1>("Q5_1"), format<ggml::Q8_0>("Q8_0"),     format<ggml::Q2_K>("Q2_K"),
    format<ggml::Q3_K>("Q3_K"), format<ggml::Q4_K>("Q4_K"),     format<ggml::Q5_K>("Q5_K"),
    format<ggml::Q6_K>("Q6_K"), format<ggml::IQ4_NL>("IQ4_NL"), format<ggml::IQ4_XS>("IQ4_XS")};

template <typename Key>
const BlockFormat *find(const Key &key, Key BlockFormat::*member) {
  const auto *found = std::ranges::find(kFormats, key, member);
  return found == std::end(kFormats) ? nullptr : found;
}

template <typename Block>
void dequantize(const Block &block, float *out) {
  for (int group = 0; group < Block::kElements / Block::kGroup; ++group) {
    const ggml::Scale scale = block.scale(group);
    for (int i = group * Block::kGroup; i < (group + 1) * Block::kGroup; ++i) out[i] = scale(block.quant(i));
  }
}

}  // namespace

const BlockFormat *find_block_format(std::string_view name) {
  return find(name, &BlockFormat::name);
}

const BlockFormat *find_block_format(uint32_t ggml_type) {
  return find(static_cast<GgmlType>(ggml_type), &BlockFormat::type);
}

void dequantize_blocks(GgmlType type, const std::byte *blocks, int64_t count, float *out) {
  ggml::with_block(type, [=](auto block) {
    for (int64_t i = 0; i < count; ++i) {
      std::memcpy(&block, blocks + i * sizeof block, sizeof block);  // they may lie anywhere
      dequantize(block, out + i * block.kElements);
    }
  });
}

}  // namespace wan
