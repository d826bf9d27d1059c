// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The safetensors file format (https://github.com/huggingface/safetensors): an untrusted file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/json_file.h"
#include "error.h"

namespace wan {

/// One tensor of a file: row-major, little endian.
struct TensorEntry {
  std::string dtype;  // as the format spells it: "F32", "BF16", …
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes, relative to the data section
};

/// Bits of one element of a dtype, 0 where the format does not know it.
size_t safetensors_element_bits(std::string_view dtype);

using TensorShapes = std::map<std::string, std::vector<int64_t>>;

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // the data's first byte in the file
};

/// Reads the header of a file of `file_size` bytes that begins with `head` (at least the header's bytes).
/// Checks everything the format promises: sizes without overflow, shape against offsets, no holes, no
/// overlaps, no rest; and bounds what the header can make grow: tensors, names, dimensions. `source` names
/// the file in errors. Throws wan::Error (WAN_INVALID).
SafetensorsHeader parse_safetensors_header(std::string_view head, uint64_t file_size,
                                           const std::string &source);

struct ComponentFiles;
class InputFile;

/// A safetensors file, or one of torch.save() (parse_torch_file(), which takes `part`), open for reading.
class SafetensorsFile {
 public:
  /// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
  explicit SafetensorsFile(const std::filesystem::path &path, const std::string &part = {});

  const std::string &path() const;
  const std::map<std::string, TensorEntry> &tensors() const { return header_.tensors; }
  const std::map<std::string, std::string> &metadata() const { return header_.metadata; }
  /// Copies bytes of the data section, from any thread. Throws wan::Error (WAN_INVALID) where the file has
  /// become shorter or cannot be read.
  void read(uint64_t begin, size_t size, std::byte *out) const;

 private:
  void open_torch_file(const std::filesystem::path &path, const std::string &part);

  std::shared_ptr<const InputFile> file_;
  SafetensorsHeader header_;
};

/// The file of each tensor by a "*.safetensors.index.json", all in the directory of that. Throws wan::Error
/// (WAN_INVALID).
std::map<std::string, std::string> parse_weight_map(const JsonFile &index);

/// The files of one component by tensor name: `<stem>.safetensors`, or the shards that
/// `<stem>.safetensors.index.json` lists (the index wins where both are there, as in Diffusers).
/// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
std::vector<SafetensorsFile> open_safetensors(const std::filesystem::path &directory,
                                              const std::string &stem);
/// The same, or the one file of another format.
std::vector<SafetensorsFile> open_files(const ComponentFiles &files);
}  // namespace wan
