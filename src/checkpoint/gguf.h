// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The GGUF file format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): an untrusted file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "checkpoint/input_file.h"
#include "checkpoint/tensor_file.h"

namespace wan {

/// By the extension of its name.
bool is_gguf(const std::filesystem::path &path);

/// Reads what stands before the data of a file of `file_size` bytes: version 2 or 3, little endian. Checks
/// lengths and offsets without overflow and against the file's size, that tensors follow each other without
/// holes but for their alignment, and bounds what the file can make grow: names, keys, tensors, dimensions,
/// the depth of arrays. Of the metadata only what tells the tensors' places and shapes is kept.
///
/// Shapes are as in PyTorch, so in the reverse of ggml's order, and as the model has them: where they are
/// other in the file, because ggml has four dimensions and quantizes long rows, they are restored.
/// TensorEntry::dtype is ggml's name of the type, "Q4_K", of those that find_block_format() knows; of others
/// safetensors'. `source` names the file in errors. Throws wan::Error (WAN_INVALID).
TensorHeader parse_gguf(const ReadBytes &read, uint64_t file_size, const std::string &source);

}  // namespace wan
