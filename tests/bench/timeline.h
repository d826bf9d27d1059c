// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Intervals of work on the GPU and on the host's threads, and what they say together.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common.h"

namespace wan::bench {

/// kDecoder is the thread that launches the decoder's work, kFrames the one that hands over frames.
enum class Lane { kKernel, kCopy, kDecoder, kFrames };

struct Interval {
  Lane lane;
  std::string name;
  uint32_t stream;     // of the GPU; 0 on the host
  int64_t chunk;       // the latent frame it belongs to, or -1
  int64_t start, end;  // nanoseconds, all of one clock
};
using Timeline = std::vector<Interval>;

/// Time from the first start to the last end that some interval of the lanes covers. Holes of less than 5 us
/// count as time not covered, but not as gaps: they are the GPU's way from one kernel to the next.
struct Coverage {
  double share, longest_gap_us, gap_us;
  int64_t gaps;
};
Coverage coverage(const Timeline &timeline, std::initializer_list<Lane> lanes);

/// Kernels by name, the longest sum first: [{name, count, ms, share}].
Report kernel_table(const Timeline &timeline);

/// What happened from the first chunk's start to the last one's end, for plot_timeline.py.
Report timeline_report(const Timeline &timeline, int64_t first_chunk, int64_t last_chunk);

}  // namespace wan::bench
