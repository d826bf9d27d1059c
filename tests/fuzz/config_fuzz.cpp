// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The configuration of every component from the same JSON.
#include "checkpoint/config.h"

#include "fuzz.h"

namespace {

template <typename Config>
void parse(const wan::JsonFile &file) {
  try {
    Config::parse(file);
  } catch (const wan::Error &) {
    // The next component may take what this one refuses.
  }
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  const JsonFile file(input, "input");
  parse<TransformerConfig>(file);
  parse<VaeConfig>(file);
  parse<TextEncoderConfig>(file);
  parse<CLIPVisionConfig>(file);
  parse<SchedulerConfig>(file);
}
