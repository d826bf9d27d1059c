// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A file of torch.save(), and a pickle alone, which is most of what can go wrong in one. What is accepted
// must lie within the file.
#include "checkpoint/torch_file.h"

#include <cstdlib>

#include "checkpoint/tensor_pickle.h"
#include "fuzz.h"

namespace {

void read_archive(std::string_view input) {
  const auto read = [input](uint64_t offset, size_t size) {
    if (offset > input.size() || size > input.size() - offset) std::abort();
    return std::string(input.substr(offset, size));
  };
  const wan::TensorHeader header = wan::parse_torch_file(read, input.size(), "input");
  for (const auto &[name, entry] : header.tensors)
    if (entry.begin > entry.end || entry.end > input.size()) std::abort();
}

}  // namespace

void wan::fuzz::run(std::string_view input) {
  if (is_zip(input)) return read_archive(input);
  for (const PickleValue &value : read_tensor_pickle(input, "input"))
    for (const size_t item : value.items)
      if (item > 2'000'000) std::abort();
}
