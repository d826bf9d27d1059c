// SPDX-License-Identifier: LGPL-2.1-or-later
#include "timeline.h"

#include <algorithm>
#include <map>

namespace wan::bench {

namespace {

constexpr int64_t kLeastGap = 5000;  // ns

const char *lane_name(Lane lane) {
  switch (lane) {
    case Lane::kKernel:
      return "kernel";
    case Lane::kCopy:
      return "copy";
    case Lane::kDecoder:
      return "decoder";
    case Lane::kFrames:
      return "frames";
  }
  return "";
}

Timeline of_lanes(const Timeline &timeline, std::initializer_list<Lane> lanes) {
  Timeline chosen;
  for (const Interval &interval : timeline)
    if (std::find(lanes.begin(), lanes.end(), interval.lane) != lanes.end()) chosen.push_back(interval);
  std::sort(chosen.begin(), chosen.end(),
            [](const Interval &a, const Interval &b) { return a.start < b.start; });
  return chosen;
}

double microseconds(int64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1e3;
}

}  // namespace

Coverage coverage(const Timeline &timeline, std::initializer_list<Lane> lanes) {
  const Timeline chosen = of_lanes(timeline, lanes);
  Coverage result{};
  if (chosen.empty()) return result;
  const int64_t start = chosen.front().start;
  int64_t end = start, uncovered = 0, gaps_sum = 0, longest = 0;
  for (const Interval &interval : chosen) {
    const int64_t hole = std::max(interval.start - end, int64_t{0});
    uncovered += hole;
    if (hole >= kLeastGap) {
      ++result.gaps;
      gaps_sum += hole;
      longest = std::max(longest, hole);
    }
    end = std::max(end, interval.end);
  }
  result.share = 1.0 - static_cast<double>(uncovered) / static_cast<double>(end - start);
  result.longest_gap_us = microseconds(longest);
  result.gap_us = microseconds(gaps_sum);
  return result;
}

Report kernel_table(const Timeline &timeline) {
  struct Sum {
    int64_t count = 0, time = 0;
  };
  std::map<std::string, Sum> by_name;
  int64_t total = 0;
  for (const Interval &interval : of_lanes(timeline, {Lane::kKernel})) {
    Sum &sum = by_name[interval.name];
    ++sum.count;
    sum.time += interval.end - interval.start;
    total += interval.end - interval.start;
  }
  std::vector<std::pair<std::string, Sum>> rows(by_name.begin(), by_name.end());
  std::sort(rows.begin(), rows.end(),
            [](const auto &a, const auto &b) { return a.second.time > b.second.time; });
  Report table = Report::array();
  for (const auto &[name, sum] : rows)
    table.push_back({{"ms", static_cast<double>(sum.time) / 1e6},
                     {"count", sum.count},
                     {"share", static_cast<double>(sum.time) / static_cast<double>(total)},
                     {"name", name}});
  return table;
}

Report timeline_report(const Timeline &timeline, int64_t first_chunk, int64_t last_chunk) {
  int64_t start = INT64_MAX, end = 0;
  for (const Interval &interval : timeline) {
    if (interval.chunk < first_chunk || interval.chunk > last_chunk) continue;
    start = std::min(start, interval.start);
    end = std::max(end, interval.end);
  }
  Report intervals = Report::array();
  for (const Interval &interval : timeline)
    if (interval.start < end && interval.end > start)
      intervals.push_back({{"lane", lane_name(interval.lane)},
                           {"name", interval.name},
                           {"stream", interval.stream},
                           {"chunk", interval.chunk},
                           {"start_us", microseconds(interval.start - start)},
                           {"end_us", microseconds(interval.end - start)}});
  return {{"first_chunk", first_chunk}, {"last_chunk", last_chunk}, {"intervals", intervals}};
}

}  // namespace wan::bench
