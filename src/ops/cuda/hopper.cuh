// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The instructions of sm_90a that the kernels here are made of: mbarriers, bulk copies, wgmma. PTX ISA 8.x.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>

namespace wan::sm90 {

__device__ inline uint32_t shared_address(const void *pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// A barrier in shared memory whose phases complete after `arrivals` arrivals and all expected bytes.
struct Barrier {
  uint64_t state;

  __device__ void init(int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&state)), "r"(arrivals));
  }
  __device__ void arrive() {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&state)) : "memory");
  }
  __device__ void arrive_and_expect(int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&state)),
                 "r"(bytes)
                 : "memory");
  }
  /// At this barrier of a block of the cluster. It publishes nothing: what was read is free to be
  /// overwritten.
  __device__ void arrive_at(uint32_t block) {
    asm volatile(
        "{\n"
        ".reg .b32 there;\n"
        "mapa.shared::cluster.u32 there, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
        "}\n" ::"r"(shared_address(&state)),
        "r"(block)
        : "memory");
  }
  /// Waits until the phase of that parity is complete.
  __device__ void wait(uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "WAIT:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra WAIT;\n"
        "DONE:\n"
        "}\n" ::"r"(shared_address(&state)),
        "r"(parity)
        : "memory");
  }
};

__device__ inline void make_barriers_visible() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ inline uint32_t block_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ inline void sync_cluster() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}

/// A place in a ring of buffers, and the parity of the barrier's phase there.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

/// A box of a 3-D tensor to shared memory; what lies outside of the tensor is zero.
__device__ inline void copy_box(void *shared, const CUtensorMap *map, Barrier &full, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(&full.state)), "r"(x), "r"(y), "r"(z)
      : "memory");
}

/// A box of a 4-D tensor to the same place in the shared memory of both blocks of a cluster, and to the same
/// barrier of each.
__device__ inline void copy_box_to_cluster(void *shared, const CUtensorMap *map, Barrier &full, int x, int y,
                                           int z, int w) {
  constexpr uint16_t kBothBlocks = 3;
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4, %5, %6}], [%2], %7;" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(&full.state)), "r"(x), "r"(y), "r"(z), "r"(w), "h"(kBothBlocks)
      : "memory");
}
__device__ inline void copy_box(void *shared, const CUtensorMap *map, Barrier &full, int x, int y, int z,
                                int w) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, "
      "%6}], [%2];" ::"r"(shared_address(shared)),
      "l"(map), "r"(shared_address(&full.state)), "r"(x), "r"(y), "r"(z), "r"(w)
      : "memory");
}

__device__ inline void copy_bytes(void *shared, const void *global, int bytes, Barrier &full) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(&full.state))
      : "memory");
}

/// To the L2 cache. Bytes are a multiple of 16.
__device__ inline void prefetch_bytes(const void *global, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes));
}

template <int kRegisters>
__device__ inline void give_up_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

enum class Swizzle : uint64_t { k128 = 1, k64 = 2 };

/// The descriptor of an operand in shared memory, swizzled. The swizzle is one of address bits, so that an
/// operand may start at any row. K-major (rows along K): groups of 8 rows may lie at any distance, and
/// bytes_between_columns means nothing. MN-major (rows of 64 along M or N): groups of 8 K lie
/// bytes_between_groups apart, and the next 64 of M or N bytes_between_columns.
__device__ inline uint64_t operand_descriptor(Swizzle swizzle, uint32_t address, int bytes_between_groups,
                                              int bytes_between_columns = 16) {
  return static_cast<uint64_t>(swizzle) << 62 | static_cast<uint64_t>(bytes_between_groups >> 4) << 32 |
         static_cast<uint64_t>(bytes_between_columns >> 4) << 16 | (address & 0x3ffff) >> 4;
}

/// The same operand, so many bytes further on.
__device__ inline uint64_t advance_operand(uint64_t descriptor, int bytes) {
  return descriptor + static_cast<uint64_t>(bytes >> 4);
}

__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/// What this thread wrote to shared memory by ordinary instructions.
__device__ inline void make_writes_visible_to_wgmma() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
/// Waits until at most that many groups are under way.
template <int kGroups>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kGroups) : "memory");
}

/// Holds the compiler back: what comes before is computed before, and waits for nothing that comes after.
template <int kCount>
__device__ inline void keep_order(float (&registers)[kCount]) {
#pragma unroll
  for (float &value : registers) asm volatile("" : "+f"(value)::"memory");
}

/// Between two warpgroups: the follower waits until the leader wakes it, once.
__device__ inline void wait_for_leader() {
  asm volatile("barrier.sync 1, 256;" ::: "memory");
}
__device__ inline void wake_follower() {
  asm volatile("barrier.arrive 1, 256;" ::: "memory");
}

// The lists of accumulator registers.
#define WAN_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WAN_D8(i) WAN_D4(i), WAN_D4(i + 4)
#define WAN_D16(i) WAN_D8(i), WAN_D8(i + 8)
#define WAN_D48 WAN_D16(0), WAN_D16(16), WAN_D16(32)
#define WAN_D64 WAN_D48, WAN_D16(48)
#define WAN_D68 WAN_D64, WAN_D4(64)
#define WAN_D88 WAN_D64, WAN_D16(64), WAN_D8(80)
#define WAN_D96 WAN_D88, WAN_D8(88)
#define WAN_R8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define WAN_R48                                                                                         \
  WAN_R8                                                                                                \
  ",%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32," \
  "%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define WAN_R64 WAN_R48 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define WAN_R68 WAN_R64 ",%64,%65,%66,%67"
#define WAN_R88 \
  WAN_R64 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87"
#define WAN_R96 WAN_R88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define WAN_BFLOAT16(N) "m64n" N "k16.f32.bf16.bf16"
#define WAN_E4M3(N) "m64n" N "k32.f32.e4m3.e4m3"
// A: text of the operand a; b, p: numbers of the operands b and `accumulate`; FLAGS: what is transposed.
#define WAN_WGMMA(SHAPE, REGISTERS, OPERANDS, A, b, p, FLAGS, ...)                                    \
  asm volatile(                                                                                       \
      "{\n"                                                                                           \
      ".reg .pred accumulate;\n"                                                                      \
      "setp.ne.b32 accumulate, %" p                                                                   \
      ", 0;\n"                                                                                        \
      "wgmma.mma_async.sync.aligned." SHAPE " {" REGISTERS "}, " A ", %" b ", accumulate, 1, 1" FLAGS \
      ";\n"                                                                                           \
      "}\n"                                                                                           \
      : OPERANDS                                                                                      \
      : __VA_ARGS__, "l"(b_operand), "r"(accumulate))

/// d [64, kColumns] (+)= a [64, K] * b [kColumns, K]^T, in float32, for a warpgroup; asynchronous. K is 32
/// bytes: 16 numbers of bfloat16, 32 of e4m3. a_operand, b_operand: descriptors, K-major.
template <int kColumns>
__device__ inline void wgmma(float (&d)[kColumns / 2], uint64_t a_operand, uint64_t b_operand,
                             int accumulate) {
  if constexpr (kColumns == 16)
    WAN_WGMMA(WAN_BFLOAT16("16"), WAN_R8, WAN_D8(0), "%8", "9", "10", ", 0, 0", "l"(a_operand));
  if constexpr (kColumns == 96)
    WAN_WGMMA(WAN_BFLOAT16("96"), WAN_R48, WAN_D48, "%48", "49", "50", ", 0, 0", "l"(a_operand));
  if constexpr (kColumns == 128)
    WAN_WGMMA(WAN_BFLOAT16("128"), WAN_R64, WAN_D64, "%64", "65", "66", ", 0, 0", "l"(a_operand));
  if constexpr (kColumns == 176)
    WAN_WGMMA(WAN_BFLOAT16("176"), WAN_R88, WAN_D88, "%88", "89", "90", ", 0, 0", "l"(a_operand));
  if constexpr (kColumns == 192)
    WAN_WGMMA(WAN_BFLOAT16("192"), WAN_R96, WAN_D96, "%96", "97", "98", ", 0, 0", "l"(a_operand));
}

#define WAN_A4 "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3])
/// The same with a in registers and 128 columns; b is MN-major.
__device__ inline void wgmma_registers(float (&d)[64], const uint32_t (&a)[4], uint64_t b_operand,
                                       int accumulate) {
  WAN_WGMMA(WAN_BFLOAT16("128"), WAN_R64, WAN_D64, "{%64, %65, %66, %67}", "68", "69", ", 1", WAN_A4);
}
/// 136 columns, and 192; b is K-major.
__device__ inline void wgmma_registers_e4m3(float (&d)[68], const uint32_t (&a)[4], uint64_t b_operand,
                                            int accumulate) {
  WAN_WGMMA(WAN_E4M3("136"), WAN_R68, WAN_D68, "{%68, %69, %70, %71}", "72", "73", "", WAN_A4);
}
__device__ inline void wgmma_registers_e4m3(float (&d)[96], const uint32_t (&a)[4], uint64_t b_operand,
                                            int accumulate) {
  WAN_WGMMA(WAN_E4M3("192"), WAN_R96, WAN_D96, "{%96, %97, %98, %99}", "100", "101", "", WAN_A4);
}

#undef WAN_A4
#undef WAN_WGMMA
#undef WAN_E4M3
#undef WAN_BFLOAT16
#undef WAN_R96
#undef WAN_R88
#undef WAN_R68
#undef WAN_R64
#undef WAN_R48
#undef WAN_R8
#undef WAN_D96
#undef WAN_D88
#undef WAN_D68
#undef WAN_D64
#undef WAN_D48
#undef WAN_D16
#undef WAN_D8
#undef WAN_D4

}  // namespace wan::sm90
