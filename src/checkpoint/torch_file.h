// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What torch.save() writes: a zip archive of tensors and of a pickle that says what they are. A pickle is a
// program that may call anything; of this one only what makes dictionaries of tensors is followed, and
// nothing is called. An untrusted file.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "checkpoint/input_file.h"
#include "checkpoint/tensor_file.h"

namespace wan {

/// Whether a file that begins so is a zip archive.
bool is_zip(std::string_view head);

/// Finds the tensors of a file of `file_size` bytes; their offsets count from the file's beginning. Of
/// several dictionaries it takes `part`, or where that is empty the one that is meant for use:
/// "generator_ema", "generator", "state_dict" or "model"; metadata["part"] says which. Names are without what
/// wrappers of training put into them ("model.", "_fsdp_wrapped_module."). `source` names the file in errors.
/// Throws wan::Error (WAN_INVALID) that says how to convert the file.
TensorHeader parse_torch_file(const ReadBytes &read, uint64_t file_size, const std::string &source,
                              const std::string &part = {});

}  // namespace wan
