// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Safetensors files, made by the tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

namespace wan::test {

using Tensors = std::map<std::string, at::Tensor>;

/// All tensors of a file.
Tensors read_safetensors(const std::filesystem::path &path);
void write_safetensors(const std::filesystem::path &path, const Tensors &tensors,
                       const std::map<std::string, std::string> &metadata = {});

}  // namespace wan::test
