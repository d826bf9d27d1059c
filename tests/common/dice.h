// What a test of random order draws from: the same seed, the same throws.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <thread>

namespace wan::test {

/// Not for several threads: each has one of its own, seeded by its parent's.
class Dice {
 public:
  explicit Dice(unsigned seed) : engine_(seed) {}

  /// 0 to sides - 1.
  int roll(int sides) { return std::uniform_int_distribution(0, sides - 1)(engine_); }
  bool one_in(int sides) { return roll(sides) == 0; }
  uint64_t bits() { return engine_(); }
  unsigned seed() { return unsigned(roll(1 << 30)); }
  template <typename T, size_t N>
  T pick(const T (&choices)[N]) {
    return choices[roll(int(N))];
  }
  /// Sleeps for 0 to most_milliseconds.
  void rest(int most_milliseconds) {
    std::this_thread::sleep_for(std::chrono::milliseconds(roll(most_milliseconds + 1)));
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace wan::test
