// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The instructions of sm_80, which all later GPUs have too, that the kernels here are made of: asynchronous
// copies, ldmatrix, mma. PTX ISA 7.x.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace wan::sm80 {

__device__ inline uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 16 bytes to shared memory, past the first cache; zeros where they are not `inside`.
__device__ inline void copy_async(uint32_t shared, const void *global, bool inside = true) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(inside ? 16 : 0)
               : "memory");
}
/// What this thread has copied since the last call is a group.
__device__ inline void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Waits until at most that many of this thread's groups are under way.
template <int kGroups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

/// Four matrices of 8x8 bfloat16. Lane l gives the address of row l % 8 of matrix l / 8, 16 bytes, and gets
/// of each matrix columns 2 (l % 4) and the next one of row l / 4.
__device__ inline void load_matrices(uint32_t (&registers)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared)
               : "memory");
}

/// d [16, 8] += a [16, 16] * b [8, 16]^T, in float32, for a warp. a: matrices (rows 0 to 7, columns 0 to 7),
/// (8, 0), (0, 8), (8, 8); b0, b1: columns 0 to 7, and 8 to 15. d[2 h + c] is column 2 (lane % 4) + c of row
/// lane / 4 + 8 h.
__device__ inline void multiply_add(float *d, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// By one instruction of the special function unit.
__device__ inline float tanh_approximate(float x) {
  float tangent;
  asm("tanh.approx.f32 %0, %1;" : "=f"(tangent) : "f"(x));
  return tangent;
}

}  // namespace wan::sm80
