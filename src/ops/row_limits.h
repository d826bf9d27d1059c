// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the kernels for rows of a transformer's activations take: what ops/rows.h and the kernels agree on.
#pragma once

namespace wan {

/// Channels that are read and written at once, 16 bytes of bfloat16.
constexpr int kRowVector = 8;
/// A block of threads keeps one row in its registers, so many vectors to a thread.
constexpr int kRowThreads = 128, kMaxRowVectors = 5;
constexpr int kMaxRowChannels = kRowVector * kRowThreads * kMaxRowVectors;  // 5120, A14B's
/// The same for rows of the feed-forward's inside, 13824 channels in A14B.
constexpr int kWideRowThreads = 256, kMaxWideRowVectors = 7;
constexpr int kMaxWideRowChannels = kRowVector * kWideRowThreads * kMaxWideRowVectors;

/// Runs of tokens with a timestep of their own each: Rolling Forcing has five sections in flight.
constexpr int kMaxSegments = 5;

/// The largest number of e4m3, which the largest magnitude of a row becomes.
constexpr float kLargestE4m3 = 448;
/// What counts as that magnitude in a row of zeros.
constexpr float kLeastRowMax = 1e-12f;

}  // namespace wan
