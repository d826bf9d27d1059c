// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What wan-bench computes from what it measures.
#include <gtest/gtest.h>

#include "decode_operations.h"
#include "timeline.h"

namespace wan::bench {
namespace {

Interval interval(Lane lane, const char *name, int64_t chunk, int64_t start_us, int64_t end_us) {
  return {lane, name, 7, chunk, start_us * 1000, end_us * 1000};
}

VaeConfig z16() {
  VaeConfig config{};
  config.base_dim = 96;
  config.z_dim = 16;
  config.num_res_blocks = 2;
  config.dim_mult = {1, 2, 4, 4};
  config.temporal_upsample = {true, true, false};
  return config;
}

// Two kernels side by side, 2 us between two more, then a gap of 60 us in which a copy runs for 20.
const Timeline kTimeline = {
    interval(Lane::kKernel, "long", 1, 100, 200),  interval(Lane::kKernel, "short", 1, 150, 220),
    interval(Lane::kKernel, "long", 2, 222, 340),  interval(Lane::kCopy, "copy to the host", 2, 340, 360),
    interval(Lane::kKernel, "short", 3, 400, 500), interval(Lane::kDecoder, "launch", 3, 0, 1000)};

TEST(Coverage, IsTheUnionOfTheIntervals) {
  const Coverage kernels = coverage(kTimeline, {Lane::kKernel});
  EXPECT_NEAR(kernels.share, 1 - 62.0 / 400, 1e-9);
  EXPECT_EQ(kernels.gaps, 1);
  EXPECT_EQ(kernels.gap_us, 60);
  EXPECT_EQ(kernels.longest_gap_us, 60);
}

TEST(Coverage, OfSeveralLanes) {
  const Coverage all = coverage(kTimeline, {Lane::kKernel, Lane::kCopy});
  EXPECT_NEAR(all.share, 1 - 42.0 / 400, 1e-9);
  EXPECT_EQ(all.longest_gap_us, 40);
}

TEST(Coverage, OfNothingIsNothing) {
  EXPECT_EQ(coverage({}, {Lane::kKernel}).share, 0);
}

TEST(KernelTable, AddsUpByNameLongestFirst) {
  const Report table = kernel_table(kTimeline);
  ASSERT_EQ(table.size(), 2u);
  EXPECT_EQ(table[0]["name"], "long");
  EXPECT_EQ(table[0]["count"], 2);
  EXPECT_DOUBLE_EQ(table[0]["ms"], 0.218);
  EXPECT_NEAR(table[1]["share"].get<double>(), 170.0 / 388, 1e-9);
}

TEST(TimelineReport, HoldsWhatOverlapsTheChunks) {
  const Report report = timeline_report(kTimeline, 2, 2);
  ASSERT_EQ(report["intervals"].size(), 3u);
  EXPECT_EQ(report["intervals"][0]["start_us"], 0);
  EXPECT_EQ(report["intervals"][0]["lane"], "kernel");
  EXPECT_EQ(report["intervals"][1]["end_us"], 138);
  EXPECT_EQ(report["intervals"][2]["start_us"], -222);
}

TEST(DecodeOperations, OfTheReleasedDecoder) {
  EXPECT_NEAR(decode_operations(z16(), 90, 160, /*first=*/false), 31.45e12, 0.005e12);
  EXPECT_NEAR(decode_operations(z16(), 60, 104, /*first=*/false), 13.55e12, 0.005e12);
  EXPECT_NEAR(decode_operations(z16(), 90, 160, /*first=*/true), 10.22e12, 0.005e12);
}

TEST(EncodeOperations, OfTheReleasedEncoder) {
  EXPECT_NEAR(encode_operations(z16(), 60, 104, /*first=*/false), 8.05e12, 0.005e12);
  EXPECT_NEAR(encode_operations(z16(), 90, 160, /*first=*/false), 18.8e12, 0.05e12);
}

VaeConfig z48() {
  VaeConfig config = z16();
  config.base_dim = 160;
  config.decoder_base_dim = 256;
  config.z_dim = 48;
  config.is_residual = true;
  config.patch_size = 2;
  return config;
}

TEST(DecodeOperations, OfTheReleasedVaeWithPatches) {
  EXPECT_NEAR(decode_operations(z48(), 44, 80, /*first=*/false), 66.4e12, 0.05e12);
  EXPECT_NEAR(encode_operations(z48(), 44, 80, /*first=*/false), 12.6e12, 0.05e12);
  EXPECT_NEAR(encode_operations(z48(), 44, 80, /*first=*/true), 4.2e12, 0.05e12);
}

}  // namespace
}  // namespace wan::bench
