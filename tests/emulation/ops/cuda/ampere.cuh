// SPDX-License-Identifier: LGPL-2.1-or-later
//
// In place of src/ops/cuda/ampere.cuh: what CUDA and its instructions do, on the CPU, for a kernel that is
// compiled as C++. The threads of a block are fibres. A warp runs until it comes to a barrier of the block,
// and which one runs next is drawn, so that a kernel which forgets a barrier gives wrong numbers. A copy
// arrives as late as it may, and until then NaN stands in its place.
#pragma once

#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace wan::emulation {

/// The running thread's and block's.
struct Index {
  unsigned x;
};
extern Index thread, block, grid;

void sync_block();
/// Gives every lane of the warp what all of them hand in: `bytes` of each, one behind the other. Until the
/// next call.
const char *exchange_in_warp(const void *own, size_t bytes);
/// Of the block's shared memory.
char *shared_memory(uint32_t address);
uint32_t shared_address(const void *pointer);

void copy_async(uint32_t shared, const void *global, bool inside);
void commit_copies();
void wait_for_copies(int groups);

template <typename T>
T of_lane(const char *all, unsigned lane) {
  T value;
  std::memcpy(static_cast<void *>(&value), all + lane * sizeof(T), sizeof(T));
  return value;
}

}  // namespace wan::emulation

#define threadIdx wan::emulation::thread
#define blockIdx wan::emulation::block
#define gridDim wan::emulation::grid

inline void __syncthreads() {
  wan::emulation::sync_block();
}
inline float __shfl_xor_sync(unsigned, float value, int mask) {
  const char *const all = wan::emulation::exchange_in_warp(&value, sizeof(value));
  return wan::emulation::of_lane<float>(all, threadIdx.x % 32 ^ static_cast<unsigned>(mask));
}
template <typename T>
void __stcs(T *to, T value) {
  *to = value;
}
inline float rsqrtf(float x) {
  return 1 / std::sqrt(x);
}

namespace wan::sm80 {

using emulation::commit_copies, emulation::shared_address;
using std::max;

inline void copy_async(uint32_t shared, const void *global, bool inside = true) {
  emulation::copy_async(shared, global, inside);
}
template <int kGroups>
void wait_for_copies() {
  emulation::wait_for_copies(kGroups);
}

inline void load_matrices(uint32_t (&registers)[4], uint32_t shared) {
  const char *const addresses = emulation::exchange_in_warp(&shared, sizeof(shared));
  const unsigned lane = threadIdx.x % 32;
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const auto row = emulation::of_lane<uint32_t>(addresses, 8 * matrix + lane / 4);
    std::memcpy(&registers[matrix], emulation::shared_memory(row + lane % 4 * 4), sizeof(uint32_t));
  }
}

inline void multiply_add(float *d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Operands {
    __nv_bfloat162 a[4], b[2];
  } own;
  std::memcpy(static_cast<void *>(own.a), a, sizeof(own.a));
  std::memcpy(static_cast<void *>(&own.b[0]), &b0, sizeof(b0));
  std::memcpy(static_cast<void *>(&own.b[1]), &b1, sizeof(b1));
  const char *const all = emulation::exchange_in_warp(&own, sizeof(own));
  const unsigned lane = threadIdx.x % 32;
  for (unsigned h = 0; h < 2; ++h)
    for (unsigned c = 0; c < 2; ++c)
      for (unsigned k = 0; k < 16; k += 2) {
        const auto row = emulation::of_lane<Operands>(all, lane / 4 * 4 + k % 8 / 2);
        const auto column = emulation::of_lane<Operands>(all, (lane % 4 * 2 + c) * 4 + k % 8 / 2);
        const float2 left = __bfloat1622float2(row.a[h + k / 8 * 2]);
        const float2 right = __bfloat1622float2(column.b[k / 8]);
        d[2 * h + c] += left.x * right.x + left.y * right.y;
      }
}

inline float tanh_approximate(float x) {
  return std::tanh(x);
}

}  // namespace wan::sm80
