// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/write_safetensors.h"

#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/weights.h"

namespace wan::test {

namespace {

const std::pair<at::ScalarType, const char *> kTypes[] = {{at::kFloat, "F32"},
                                                          {at::kBFloat16, "BF16"},
                                                          {at::kHalf, "F16"},
                                                          {at::kDouble, "F64"},
                                                          {at::kLong, "I64"},
                                                          {at::kInt, "I32"},
                                                          {at::kShort, "I16"},
                                                          {at::kChar, "I8"},
                                                          {at::kByte, "U8"},
                                                          {at::kFloat8_e4m3fn, "F8_E4M3"},
                                                          {at::kFloat8_e5m2, "F8_E5M2"}};

std::string spelled(at::ScalarType type) {
  for (const auto &[known, name] : kTypes)
    if (type == known) return name;
  throw std::runtime_error("no name for this dtype");
}

}  // namespace

Tensors read_safetensors(const std::filesystem::path &path) {
  const TensorFile file(path);
  Tensors tensors;
  for (const auto &[name, entry] : file.tensors()) tensors[name] = stored_tensor(file, name);
  return tensors;
}

void write_safetensors(const std::filesystem::path &path, const Tensors &tensors,
                       const std::map<std::string, std::string> &metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string data;
  for (const auto &[name, tensor] : tensors) {
    const at::Tensor packed = tensor.contiguous();
    const size_t begin = data.size();
    data.append(static_cast<const char *>(packed.const_data_ptr()), packed.nbytes());
    header[name] = {{"dtype", spelled(tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::filesystem::create_directories(path.parent_path());
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char *>(&length), sizeof(length));
  file << text << data;
}

}  // namespace wan::test
