// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What every fuzz target does: only wan::Error may come out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "error.h"

namespace wan::fuzz {

void run(std::string_view input);

}  // namespace wan::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  try {
    wan::fuzz::run({reinterpret_cast<const char *>(data), size});
  } catch (const wan::Error &) {
    // A refusal is right; a crash, a hang or another exception is what the fuzzer looks for.
  }
  return 0;
}
