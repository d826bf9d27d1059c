// What the programs that run under ThreadSanitizer share.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdio>
#include <cstdlib>
#include <random>

#include "common/dice.h"

#undef CHECK  // LibTorch's
#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                        \
    }                                                                      \
  } while (false)

namespace wan::test {

/// PROGRAM ROUNDS [SEED]
struct Rounds {
  int count;
  unsigned seed;
};

/// Says the seed first, so that a failure can be repeated.
inline Rounds parse_rounds(int argc, char **argv) {
  const Rounds rounds{argc > 1 ? std::atoi(argv[1]) : 20,
                      argc > 2 ? unsigned(std::strtoul(argv[2], nullptr, 10)) : std::random_device()()};
  std::printf("seed %u\n", rounds.seed);
  std::fflush(stdout);
  return rounds;
}

}  // namespace wan::test
