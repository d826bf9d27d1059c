// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file of tensors in one of the formats that are read: safetensors.h, torch_file.h, gguf.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "error.h"

namespace wan {

/// One tensor of a file: row-major, little endian.
struct TensorEntry {
  std::string dtype;  // as safetensors spells it: "F32", "BF16", …; or the name of a BlockFormat: "Q4_K"
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes, relative to the data section
};

using TensorShapes = std::map<std::string, std::vector<int64_t>>;

/// What a file says of its tensors.
struct TensorHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // the data's first byte in the file
};

struct ComponentFiles;
class InputFile;

/// A file of tensors, open for reading. Its name's extension says the format: a file of torch.save() (see
/// parse_torch_file(), which takes `part`), GGUF, else safetensors.
class TensorFile {
 public:
  /// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
  explicit TensorFile(const std::filesystem::path &path, const std::string &part = {});

  const std::string &path() const;
  const std::map<std::string, TensorEntry> &tensors() const { return header_.tensors; }
  const std::map<std::string, std::string> &metadata() const { return header_.metadata; }
  /// Copies bytes of the data section, from any thread. Throws wan::Error (WAN_INVALID) where the file has
  /// become shorter or cannot be read.
  void read(uint64_t begin, size_t size, std::byte *out) const;

 private:
  std::shared_ptr<const InputFile> file_;
  TensorHeader header_;
};

/// The files of one component by tensor name: those of open_safetensors(), or the one file of another format.
/// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
std::vector<TensorFile> open_files(const ComponentFiles &files);

}  // namespace wan
