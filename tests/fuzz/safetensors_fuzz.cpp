// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The header of a safetensors file. What it accepts must lie within the file.
#include "checkpoint/safetensors.h"

#include <cstdlib>

#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  const TensorHeader header = parse_safetensors_header(input, input.size(), "input");
  for (const auto &[name, entry] : header.tensors)
    if (entry.begin > entry.end || header.data_begin + entry.end > input.size()) std::abort();
}
