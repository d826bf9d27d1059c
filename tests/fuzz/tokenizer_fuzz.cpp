// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A tokenizer.json, and a prompt with the tokenizer that it makes.
#include "text/tokenizer.h"

#include <cstdlib>
#include <fstream>

#include "common/temporary_directory.h"
#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  static const test::TemporaryDirectory directory;
  std::ofstream(directory.path() / "tokenizer.json", std::ios::binary) << input;
  const Tokenizer tokenizer(directory.path());
  if (tokenizer("a  red \xC3\xA9 circle</s> \xEF\xBD\xB1", 16).size() > 16) std::abort();
}
