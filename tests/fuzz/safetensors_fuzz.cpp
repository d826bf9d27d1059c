// The header of a safetensors file. What it accepts must lie within the file.
#include "checkpoint/safetensors.h"

#include <cstdlib>

#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  uint64_t data_begin = 0;
  for (const auto &[name, entry] : parse_safetensors_header(input, input.size(), "input", data_begin))
    if (entry.begin > entry.end || data_begin + entry.end > input.size()) std::abort();
}
