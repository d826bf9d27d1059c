// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A tokenizer_config.json beside a small tokenizer.json.
#include <filesystem>
#include <fstream>

#include "common/temporary_directory.h"
#include "fuzz.h"
#include "text/tokenizer.h"

void wan::fuzz::run(std::string_view input) {
  static const test::TemporaryDirectory directory;
  static const bool copied = std::filesystem::copy_file(
      WAN_SOURCE_DIR "/tests/fuzz/corpus/tokenizer/small.json", directory.path() / "tokenizer.json");
  if (copied) std::ofstream(directory.path() / "tokenizer_config.json", std::ios::binary) << input;
  Tokenizer(directory.path()).pad_id();
}
