// What the kernels for rows of a transformer's activations take: what ops/rows.h and the kernels agree on.
#pragma once

namespace wan {

/// Channels that are read and written at once, 16 bytes of bfloat16.
constexpr int kRowVector = 8;
/// A block of threads keeps one row in its registers, so many vectors to a thread.
constexpr int kRowThreads = 128, kMaxRowVectors = 5;
constexpr int kMaxRowChannels = kRowVector * kRowThreads * kMaxRowVectors;  // 5120, A14B's

}  // namespace wan
