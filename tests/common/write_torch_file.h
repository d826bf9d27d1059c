// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Files as torch.save() writes them, made by the tests.
#pragma once

#include <ATen/ATen.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "common/write_safetensors.h"

namespace wan::test {

/// Little endian.
template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// Of stored files, with their names.
inline std::string zip_of(const std::vector<std::pair<std::string, std::string>> &files) {
  std::string archive, directory;
  for (const auto &[name, bytes] : files) {
    const auto offset = static_cast<uint32_t>(archive.size()), size = static_cast<uint32_t>(bytes.size());
    const std::string common = std::string(12, '\0') + bytes_of(size) + bytes_of(size) +
                               bytes_of(static_cast<uint16_t>(name.size())) + std::string(2, '\0');
    archive += "PK\x03\x04" + std::string(2, '\0') + common + name + bytes;
    directory +=
        "PK\x01\x02" + std::string(4, '\0') + common + std::string(10, '\0') + bytes_of(offset) + name;
  }
  const auto count = static_cast<uint16_t>(files.size());
  return archive + directory + "PK\x05\x06" + std::string(4, '\0') + bytes_of(count) + bytes_of(count) +
         bytes_of(static_cast<uint32_t>(directory.size())) + bytes_of(static_cast<uint32_t>(archive.size())) +
         std::string(2, '\0');
}

/// What pickle writes of some values.
inline std::string pickled_text(const std::string &text) {
  return "X" + bytes_of(static_cast<uint32_t>(text.size())) + text;
}
inline std::string pickled_number(int64_t number) {
  return "J" + bytes_of(static_cast<int32_t>(number));
}
inline std::string pickled_numbers(at::IntArrayRef numbers) {
  std::string tuple = "(";
  for (const int64_t number : numbers) tuple += pickled_number(number);
  return tuple + "t";
}
/// A float32 one, whose bytes are data/KEY.
inline std::string pickled_tensor(const at::Tensor &tensor, const std::string &key) {
  return "ctorch._utils\n_rebuild_tensor_v2\n((" + pickled_text("storage") + "ctorch\nFloatStorage\n" +
         pickled_text(key) + pickled_text("cpu") + pickled_number(tensor.numel()) + "tQ" + pickled_number(0) +
         pickled_numbers(tensor.sizes()) + pickled_numbers(tensor.strides()) + "\x89" +
         "ccollections\nOrderedDict\n)RtR";
}

/// The archive of {part: tensors}; part empty: of the tensors alone.
inline std::string torch_file_of(const std::string &part, const Tensors &tensors) {
  std::string pickle = "}(";
  std::vector<std::pair<std::string, std::string>> files = {{"archive/data.pkl", ""}};
  for (const auto &[name, values] : tensors) {
    const at::Tensor tensor = values.contiguous();
    const std::string key = std::to_string(files.size());
    pickle += pickled_text(name) + pickled_tensor(tensor, key);
    files.emplace_back("archive/data/" + key,
                       std::string(static_cast<const char *>(tensor.const_data_ptr()), tensor.nbytes()));
  }
  pickle += "u";
  files[0].second = "\x80\x02" + (part.empty() ? pickle : "}(" + pickled_text(part) + pickle + "u") + ".";
  return zip_of(files);
}

inline void write_file(const std::filesystem::path &path, const std::string &bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

}  // namespace wan::test
