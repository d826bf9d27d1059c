// SPDX-License-Identifier: LGPL-2.1-or-later
//
// An index of shards: the names it gives must stay in its directory.
#include <cstdlib>

#include "checkpoint/safetensors.h"
#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  const JsonFile index(input, "input");
  for (const auto &[tensor, shard] : parse_weight_map(index))
    if (shard.empty() || shard == "." || shard == ".." || shard.find('/') != shard.npos) std::abort();
}
