// SPDX-License-Identifier: LGPL-2.1-or-later
//
// GGUF files, made by the tests.
#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "common/dice.h"
#include "common/write_torch_file.h"
#include "ops/ggml_blocks.h"

namespace wan::test {

/// A tensor as it is stored.
struct GgufTensor {
  uint32_t type;  // ggml's number
  std::vector<int64_t> shape;
  std::string bytes;
};
using GgufTensors = std::map<std::string, GgufTensor>;

inline std::string gguf_text(const std::string &text) {
  return bytes_of(static_cast<uint64_t>(text.size())) + text;
}
/// A key with a value of a type, by their numbers.
template <typename T>
std::string gguf_key(const std::string &key, uint32_t type, T value) {
  return gguf_text(key) + bytes_of(type) + bytes_of(value);
}
/// What a file says of one tensor.
inline std::string gguf_info(const std::string &name, const GgufTensor &tensor, uint64_t offset) {
  std::string info = gguf_text(name) + bytes_of(static_cast<uint32_t>(tensor.shape.size()));
  for (auto length = tensor.shape.rbegin(); length != tensor.shape.rend(); ++length)
    info += bytes_of(*length);
  return info + bytes_of(tensor.type) + bytes_of(offset);
}
inline void pad_gguf(std::string &bytes) {
  constexpr size_t kAlignment = 32;
  bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
}

/// The file's bytes. keys: of the metadata, each made by gguf_key().
inline std::string gguf_of(const GgufTensors &tensors, const std::vector<std::string> &keys = {}) {
  std::string header = "GGUF" + bytes_of(uint32_t{3}) + bytes_of(static_cast<uint64_t>(tensors.size())) +
                       bytes_of(static_cast<uint64_t>(keys.size()));
  for (const std::string &key : keys) header += key;
  std::string data;
  for (const auto &[name, tensor] : tensors) {
    header += gguf_info(name, tensor, data.size());
    data += tensor.bytes;
    pad_gguf(data);
  }
  pad_gguf(header);
  return header + data;
}

/// Of float32, float16 or bfloat16.
inline GgufTensor gguf_tensor(const at::Tensor &values) {
  const at::Tensor packed = values.contiguous();
  const uint32_t type = values.scalar_type() == at::kFloat ? 0 : values.scalar_type() == at::kHalf ? 1 : 30;
  return {type, values.sizes().vec(),
          std::string(static_cast<const char *>(packed.const_data_ptr()), packed.nbytes())};
}
inline GgufTensors gguf_tensors(const Tensors &tensors) {
  GgufTensors all;
  for (const auto &[name, values] : tensors) all[name] = gguf_tensor(values);
  return all;
}

/// Random blocks, whose values are as small as a model's are.
inline GgufTensor random_gguf_tensor(GgmlType type, at::IntArrayRef shape, Dice &dice) {
  constexpr uint16_t kSmall = 0x0c00;  // 2^-12
  GgufTensor tensor = {static_cast<uint32_t>(type), shape.vec(), {}};
  ggml::with_block(type, [&](auto block) {
    for (int64_t i = 0; i < c10::multiply_integers(shape) / block.kElements; ++i) {
      std::string bytes(sizeof block, '\0');
      for (char &byte : bytes) byte = static_cast<char>(dice.roll(256));
      std::memcpy(&block, bytes.data(), sizeof block);
      block.d = kSmall;
      if constexpr (requires { block.m; }) block.m = kSmall;
      if constexpr (requires { block.dmin; }) block.dmin = kSmall;
      tensor.bytes.append(reinterpret_cast<const char *>(&block), sizeof block);
    }
  });
  return tensor;
}

/// What its blocks stand for.
inline at::Tensor dequantized(const GgufTensor &tensor) {
  const at::Tensor values = at::empty(tensor.shape);
  const BlockFormat &format = *find_block_format(tensor.type);
  dequantize_blocks(format.type, reinterpret_cast<const std::byte *>(tensor.bytes.data()),
                    values.numel() / format.elements, values.mutable_data_ptr<float>());
  return values;
}

}  // namespace wan::test
