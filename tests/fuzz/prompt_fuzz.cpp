// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A prompt: cleaned, and cut by the embedded model's tokenizer.
#include <cstdlib>

#include "fuzz.h"
#include "text/prompt_clean.h"
#include "text/tokenizer.h"

void wan::fuzz::run(std::string_view input) {
  static const Tokenizer tokenizer(WAN_SOURCE_DIR "/models/wan-tiny/tokenizer");
  constexpr size_t kLength = 512;
  if (tokenizer(prompt_clean(input), kLength).size() > kLength) std::abort();
}
