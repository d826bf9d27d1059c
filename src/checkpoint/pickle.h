// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Files of Python's pickle format, which may run code when they are opened: known by their names. Of those
// that torch.save() writes today, torch_file.h reads what says where tensors are; older ones are not read.
#pragma once

#include <algorithm>
#include <array>
#include <filesystem>
#include <string>
#include <string_view>

#include "error.h"

namespace wan {

inline constexpr std::array<std::string_view, 4> kPickleExtensions = {".pth", ".pt", ".bin", ".ckpt"};

inline bool is_pickle(const std::filesystem::path &path) {
  return std::ranges::find(kPickleExtensions, path.extension().string()) != kPickleExtensions.end();
}

/// `what`: the start of the sentence, which ends with the file or files.
inline Error pickle_error(const std::string &what) {
  return invalid(
      what +
      ": pickles may run code when they are opened, and are not read; make a .safetensors file of it, "
      "for a checkpoint with Diffusers' scripts/convert_wan_to_diffusers.py");
}

}  // namespace wan
