// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/pass.h"

#include <algorithm>

namespace wan {

SegmentRange segments_of(const std::vector<TimeSegment> &times, const Share &tokens) {
  const auto begins_by = [&times](int64_t token) {
    return std::ranges::count_if(times, [token](const TimeSegment &s) { return s.first_token <= token; });
  };
  const auto first = begins_by(tokens.first) - 1, end = begins_by(tokens.first + tokens.count - 1);
  SegmentRange range = {first, end - first, {}};
  for (auto i = first; i < end; ++i)
    range.starts.push_back(std::max<int64_t>(0, times[static_cast<size_t>(i)].first_token - tokens.first));
  return range;
}

}  // namespace wan
