// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The safetensors file format (https://github.com/huggingface/safetensors): an untrusted file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/input_file.h"
#include "checkpoint/json_file.h"
#include "checkpoint/tensor_file.h"

namespace wan {

/// Bits of one element of a dtype, 0 where the format does not know it.
size_t safetensors_element_bits(std::string_view dtype);

/// Reads the header of a file of `file_size` bytes that begins with `head` (at least the header's bytes).
/// Checks everything the format promises: sizes without overflow, shape against offsets, no holes, no
/// overlaps, no rest; and bounds what the header can make grow: tensors, names, dimensions. `source` names
/// the file in errors. Throws wan::Error (WAN_INVALID).
TensorHeader parse_safetensors_header(std::string_view head, uint64_t file_size, const std::string &source);

/// The same of a file, of which it reads the header alone.
TensorHeader read_safetensors_header(const ReadBytes &read, uint64_t file_size, const std::string &source);

/// The file of each tensor by a "*.safetensors.index.json", all in the directory of that. Throws wan::Error
/// (WAN_INVALID).
std::map<std::string, std::string> parse_weight_map(const JsonFile &index);

/// The files of one component by tensor name: `<stem>.safetensors`, or the shards that
/// `<stem>.safetensors.index.json` lists (the index wins where both are there, as in Diffusers).
/// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
std::vector<TensorFile> open_safetensors(const std::filesystem::path &directory, const std::string &stem);

}  // namespace wan
