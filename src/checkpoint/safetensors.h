// The safetensors file format (https://github.com/huggingface/safetensors): an untrusted file, memory-mapped.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "error.h"

namespace wan {

/// One tensor of a file: row-major, little endian.
struct TensorEntry {
  std::string dtype;  // as the format spells it: "F32", "BF16", …
  std::vector<int64_t> shape;
  uint64_t begin, end;  // bytes, relative to the data section
};

/// Bytes of one element of a dtype, 0 where the format does not know it.
size_t safetensors_element_size(std::string_view dtype);

using TensorShapes = std::map<std::string, std::vector<int64_t>>;

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // the data's first byte in the file
};

/// Reads the header of a file of `file_size` bytes that begins with `head` (at least the header's bytes).
/// Checks everything the format promises: sizes without overflow, shape against offsets, no holes, no
/// overlaps, no rest. `source` names the file in errors. Throws wan::Error (WAN_INVALID).
SafetensorsHeader parse_safetensors_header(std::string_view head, uint64_t file_size,
                                           const std::string &source);

class FileDescriptor;

/// A safetensors file mapped into memory, read-only.
class SafetensorsFile {
 public:
  /// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
  explicit SafetensorsFile(const std::filesystem::path &path);

  const std::string &path() const { return path_; }
  const std::map<std::string, TensorEntry> &tensors() const { return header_.tensors; }
  const std::map<std::string, std::string> &metadata() const { return header_.metadata; }
  /// First byte of a tensor; valid as long as this object, and not necessarily aligned.
  const std::byte *data(const TensorEntry &entry) const {
    return mapping_.get() + header_.data_begin + entry.begin;
  }
  /// Copies bytes of the data section without the mapping, from any thread. Throws wan::Error (WAN_INVALID)
  /// where the file has become shorter or cannot be read.
  void read(uint64_t begin, size_t size, std::byte *out) const;

 private:
  std::string path_;
  std::shared_ptr<const FileDescriptor> file_;
  std::shared_ptr<const std::byte> mapping_;
  SafetensorsHeader header_;
};

/// The files of one component by tensor name: `<stem>.safetensors`, or the shards that
/// `<stem>.safetensors.index.json` lists (the index wins where both are there, as in Diffusers).
/// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
std::vector<SafetensorsFile> open_safetensors(const std::filesystem::path &directory,
                                              const std::string &stem);

}  // namespace wan
