// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The keys of a LoRA, one a line, against a small expert. Each that is taken is for one part of a weight of
// it.
#include "checkpoint/lora_keys.h"

#include <cstdlib>
#include <sstream>

#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  static const TensorShapes shapes = {{"patch_embedding.weight", {8, 4, 1, 2, 2}},
                                      {"scale_shift_table", {1, 2, 8}},
                                      {"blocks.0.norm2.weight", {8}},
                                      {"blocks.0.attn1.to_q.weight", {8, 8}},
                                      {"blocks.0.attn2.to_out.0.weight", {8, 8}},
                                      {"blocks.11.ffn.net.0.proj.weight", {12, 8}}};
  std::vector<std::string> keys;
  std::istringstream lines{std::string(input)};
  for (std::string line; std::getline(lines, line);) keys.push_back(line);
  for (const char *component : {"transformer", "transformer_2"}) {
    size_t taken = 0;
    for (const auto &[module, parts] : LoraKeys::sort(keys, shapes, component, "input").modules) {
      if (!shapes.contains(module) && !shapes.contains(module + ".weight")) std::abort();
      taken += parts.size();
    }
    if (taken > keys.size()) std::abort();
  }
}
