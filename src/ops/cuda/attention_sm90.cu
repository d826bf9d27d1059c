// SPDX-License-Identifier: LGPL-2.1-or-later
//
// FlashAttention-3 (Shah et al. 2024, https://arxiv.org/abs/2407.08608): a block of threads has 128 queries
// of one head and goes over all keys. One warpgroup brings keys and values through the copy engine, two
// compute 64 queries each; in each, the product with the values of one tile of keys runs beside the softmax
// of the next. The two do not take turns at the tensor cores, as in the paper: that was 2 % slower. Two
// blocks with neighbouring queries form a cluster, and each brings half of every tile for both.
#include "ops/cuda/attention_sm90.h"

#include <cuda_fp8.h>

#include <type_traits>

#include "ops/cuda/hopper.cuh"
#include "ops/cuda/tensor_map.h"

namespace wan::sm90 {

namespace {

constexpr int kHeadDim = kAttentionHeadDim;
constexpr int kConsumers = 2, kWarpgroupQueries = 64, kQueries = kConsumers * kWarpgroupQueries;
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kStages = 2, kClusterBlocks = 2;
constexpr int kRowBytes = 128;  // of a tile's rows in shared memory, the width of their swizzle
constexpr int kAlignment = 1024;

/// What differs between the formats of queries, keys and values.
template <typename Element>
struct Format;

template <>
struct Format<__nv_bfloat16> {
  static constexpr int kKeys = 176;  // a tile's: as many as the registers hold scores of
  static constexpr int kValueRows = kHeadDim;
};

template <>
struct Format<__nv_fp8_e4m3> {
  static constexpr int kKeys = 192;
  /// To the channels of the values come rows of ones: the product with the weights then has their sum, too.
  static constexpr int kValueRows = kHeadDim + 8;
  /// The tensor cores add products of e4m3 to sums of some 13 bits, so that many small ones would be lost.
  /// After so many tiles the sums go to float32 in shared memory.
  static constexpr int kTilesInRegisters = 4;
};

template <typename Element>
struct alignas(kAlignment) Shared {
  static constexpr bool kIsFp8 = std::is_same_v<Element, __nv_fp8_e4m3>;
  static constexpr int kKeys = Format<Element>::kKeys;
  static constexpr int kChunks = kHeadDim * sizeof(Element) / kRowBytes;  // of a row of queries or keys
  static constexpr int kTileBytes = kKeys * kHeadDim * sizeof(Element);
  static constexpr int kValueRows = Format<Element>::kValueRows;
  static constexpr int kOut = kValueRows / 2;  // of a thread of the consumers

  char queries[kQueries * kHeadDim * sizeof(Element)];  // [chunk][query][kRowBytes]
  char keys[kStages][kTileBytes];                       // [chunk][key][kRowBytes]
  // bfloat16: as keys; e4m3: [64 keys][kValueRows][64], transposed
  char values[kStages][kTileBytes / kHeadDim * kValueRows];
  float4 sums[kIsFp8 ? kConsumers : 0][kOut / 4][128];  // of each thread of the consumers
  Barrier queries_full, keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
};

struct Params {
  CUtensorMap queries, keys, values;
  const float *value_scale;  // [batch, heads, head_dim] for e4m3
  __nv_bfloat16 *out;        // [batch, num_queries, heads, head_dim]
  int num_queries, num_keys, heads;
  float scale_log2;  // of the scores, for powers of 2
};

/// This block's half of a tile of keys goes to both blocks of the cluster.
__device__ void copy_keys(const Params &params, Shared<__nv_bfloat16> &shared, int stage, int first, int head,
                          int batch, int half) {
  copy_box_to_cluster(shared.keys[stage] + half * shared.kKeys * kRowBytes, &params.keys,
                      shared.keys_full[stage], half * 64, head, first, batch);
}
__device__ void copy_values(const Params &params, Shared<__nv_bfloat16> &shared, int stage, int first,
                            int head, int batch, int half) {
  copy_box_to_cluster(shared.values[stage] + half * shared.kKeys * kRowBytes, &params.values,
                      shared.values_full[stage], half * 64, head, first, batch);
}
__device__ void copy_keys(const Params &params, Shared<__nv_fp8_e4m3> &shared, int stage, int first, int head,
                          int batch, int half) {
  const int row = half * shared.kKeys / 2;
  copy_box_to_cluster(shared.keys[stage] + row * kRowBytes, &params.keys, shared.keys_full[stage], 0, head,
                      first + row, batch);
}
__device__ void copy_values(const Params &params, Shared<__nv_fp8_e4m3> &shared, int stage, int first,
                            int head, int batch, int half) {
  for (int chunk = 0; chunk < shared.kKeys / 64; ++chunk)
    copy_box_to_cluster(shared.values[stage] + (chunk * shared.kValueRows + half * kHeadDim / 2) * 64,
                        &params.values, shared.values_full[stage], first + chunk * 64, half * kHeadDim / 2,
                        head, batch);
}

__device__ void write_ones(Shared<__nv_bfloat16> &) {}
/// The rows of ones, which no copy overwrites. The order of their bytes, and so the swizzle, is all the same.
__device__ void write_ones(Shared<__nv_fp8_e4m3> &shared) {
  using Tiles = Shared<__nv_fp8_e4m3>;
  constexpr int kChunkBytes = Tiles::kValueRows * 64, kFirst = kHeadDim * 64;
  constexpr int kWords = (kChunkBytes - kFirst) / 4, kChunks = kStages * Tiles::kKeys / 64;
  constexpr uint32_t kOnes = 0x38383838;
  for (int i = static_cast<int>(threadIdx.x); i < kChunks * kWords; i += kThreads)
    reinterpret_cast<uint32_t *>(shared.values[0] + i / kWords * kChunkBytes + kFirst)[i % kWords] = kOnes;
  make_writes_visible_to_wgmma();
}

template <typename Element>
__device__ void produce(const Params &params, Shared<Element> &shared, int first_query, int head, int batch) {
  using Tiles = Shared<Element>;
  shared.queries_full.arrive_and_expect(sizeof(shared.queries));
  for (int chunk = 0; chunk < Tiles::kChunks; ++chunk)
    copy_box(shared.queries + chunk * kQueries * kRowBytes, &params.queries, shared.queries_full, chunk * 64,
             head, first_query, batch);
  const int half = static_cast<int>(block_in_cluster());
  RingPosition<kStages> ring;
  // The last tile comes first, since it may have to be masked.
  for (int tile = (params.num_keys - 1) / Tiles::kKeys; tile >= 0; --tile, ring.advance()) {
    const int stage = ring.stage;
    shared.keys_empty[stage].wait(ring.parity ^ 1);
    shared.keys_full[stage].arrive_and_expect(Tiles::kTileBytes);
    copy_keys(params, shared, stage, tile * Tiles::kKeys, head, batch, half);
    shared.values_empty[stage].wait(ring.parity ^ 1);
    shared.values_full[stage].arrive_and_expect(Tiles::kTileBytes);
    copy_values(params, shared, stage, tile * Tiles::kKeys, head, batch, half);
  }
}

__device__ float exponential2(float x) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
}

__device__ uint32_t pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const uint32_t &>(pair);
}
__device__ uint32_t pack(float a, float b, float c, float d) {
  uint32_t packed;
  asm("{\n"
      ".reg .b16 low, high;\n"
      "cvt.rn.satfinite.e4m3x2.f32 low, %2, %1;\n"
      "cvt.rn.satfinite.e4m3x2.f32 high, %4, %3;\n"
      "mov.b32 %0, {low, high};\n"
      "}\n"
      : "=r"(packed)
      : "f"(a), "f"(b), "f"(c), "f"(d));
  return packed;
}

/// Of the four threads that have a row together.
__device__ float row_max(float largest) {
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
  return fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
}
/// `most`, or the largest of a row's scores.
template <int kScores>
__device__ __forceinline__ float row_max(const float (&scores)[kScores], int row, float most) {
#pragma unroll
  for (int i = 2 * row; i < kScores; i += 4) most = fmaxf(most, fmaxf(scores[i], scores[i + 1]));
  return row_max(most);
}
__device__ float row_sum(float sum) {
  sum += __shfl_xor_sync(~0u, sum, 1);
  return sum + __shfl_xor_sync(~0u, sum, 2);
}

/// Makes a thread's scores, those of two rows, weights: tile after tile, relative to a number that may grow.
/// Then it says how what was summed up before must be rescaled.
template <typename Element>
struct Softmax;

/// Relative to the largest score so far.
template <>
struct Softmax<__nv_bfloat16> {
  float largest[2], sums[2], rescale[2];
  bool rescales;  // one of the warp's rows, at least

  template <int kScores>
  __device__ __forceinline__ void start(const float (&)[kScores], float) {
    largest[0] = largest[1] = -INFINITY;
    sums[0] = sums[1] = 0;
  }

  template <int kScores>
  __device__ __forceinline__ void weigh(float (&scores)[kScores], float scale_log2) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float most = row_max(scores, row, largest[row]);
      rescale[row] = exponential2((largest[row] - most) * scale_log2);
      largest[row] = most;
      const float subtracted = most * scale_log2;
      float sum[2] = {0, 0};  // two, so that additions wait less for each other
#pragma unroll
      for (int i = 2 * row; i < kScores; i += 4) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          scores[i + j] = exponential2(fmaf(scores[i + j], scale_log2, -subtracted));
          sum[j] += scores[i + j];
        }
      }
      sums[row] = sums[row] * rescale[row] + (sum[0] + sum[1]);
    }
    // The sums are asked (they are above 0) so that the assembler cannot put off the softmax until the
    // product that runs beside it is done.
    rescales = !__all_sync(~0u, rescale[0] == 1 && rescale[1] == 1 && sums[0] > 0 && sums[1] > 0);
  }
};

/// Here instructions are what costs. The number that scores are relative to follows the largest one late,
/// only when weights outgrow e4m3; the sum of the weights is one more column of the product with the values.
template <>
struct Softmax<__nv_fp8_e4m3> {
  /// Powers of 2. The largest that is rounded to no more than the 448 of e4m3, and what the largest becomes:
  /// as high as it may be, so that small weights stay normal, yet with room to grow.
  static constexpr float kLimit = 8.75f, kTarget = 6;

  float subtracted[2], rescale[2];
  bool rescales;  // one of the warp's rows, at least

  template <int kScores>
  __device__ __forceinline__ void start(const float (&scores)[kScores], float scale_log2) {
#pragma unroll
    for (int row = 0; row < 2; ++row)
      subtracted[row] = row_max(scores, row, -INFINITY) * scale_log2 - kTarget;
  }

  template <int kScores>
  __device__ __forceinline__ void weigh(float (&scores)[kScores], float scale_log2) {
    int largest[2];  // as bits: of floats above 0 these have the same order, and all others are below
#pragma unroll
    for (int row = 0; row < 2; ++row) {
#pragma unroll
      for (int i = 2 * row; i < kScores; i += 4)
#pragma unroll
        for (int j = 0; j < 2; ++j) scores[i + j] = fmaf(scores[i + j], scale_log2, -subtracted[row]);
      largest[row] = __float_as_int(scores[2 * row]);
#pragma unroll
      for (int i = 2 * row; i < kScores; i += 4)
        largest[row] = __vimax3_s32(largest[row], __float_as_int(scores[i]), __float_as_int(scores[i + 1]));
    }
    rescales = !__all_sync(~0u, max(largest[0], largest[1]) <= __float_as_int(kLimit));
    if (rescales) raise(scores, largest);
#pragma unroll
    for (int i = 0; i < kScores; ++i) scores[i] = exponential2(scores[i]);
  }

  /// Makes the scores of rows with one above the limit relative to their largest.
  template <int kScores>
  __device__ __forceinline__ void raise(float (&scores)[kScores], const int (&largest)[2]) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      const float most = row_max(__int_as_float(largest[row]));
      const float raised = most <= kLimit ? 0 : most - kTarget;
      subtracted[row] += raised;
      rescale[row] = exponential2(-raised);
#pragma unroll
      for (int i = 2 * row; i < kScores; i += 4) {
        scores[i] -= raised;
        scores[i + 1] -= raised;
      }
    }
  }
};

/// A warpgroup's 64 queries. A thread has two of their rows, and of each every fourth pair of columns.
template <typename Element>
struct Consumer {
  using Tiles = Shared<Element>;
  static constexpr bool kIsFp8 = Tiles::kIsFp8;
  static constexpr int kKeys = Tiles::kKeys;
  static constexpr int kStepBytes = 32;  // K of one wgmma
  static constexpr int kQuerySteps = kHeadDim * sizeof(Element) / kStepBytes;
  static constexpr int kSteps = kKeys * sizeof(Element) / kStepBytes;

  uint32_t queries[kIsFp8 ? kQuerySteps : 0][4];
  float scores[kKeys / 2];
  Softmax<Element> softmax;
  uint32_t weights[kSteps][4];
  float out[Tiles::kOut];
  float sums_rescale[2];  // of the sums in shared memory

  /// Those of e4m3 fit into registers, where the tensor cores need not fetch them again for every tile.
  __device__ void load_queries(const Tiles &shared, int consumer) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) % 128 / 32;
#pragma unroll
    for (int step = 0; step < kQuerySteps; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = consumer * kWarpgroupQueries + warp * 16 + lane / 4 + i % 2 * 8;
        const int sixteen = 2 * step + i / 2;  // bytes
        queries[step][i] = *reinterpret_cast<const uint32_t *>(shared.queries + row * kRowBytes +
                                                               (sixteen ^ row % 8) * 16 + lane % 4 * 4);
      }
  }

  /// scores = queries * keys^T
  __device__ void multiply_keys(const Tiles &shared, int consumer, int stage) {
    constexpr int kGroup = 8 * kRowBytes;
    const uint64_t keys = operand_descriptor(Swizzle::k128, shared_address(shared.keys[stage]), kGroup);
#pragma unroll
    for (int step = 0; step < kQuerySteps; ++step) {
      const int chunk = step * kStepBytes / kRowBytes, offset = step * kStepBytes % kRowBytes;
      const uint64_t b = advance_operand(keys, chunk * kKeys * kRowBytes + offset);
      if constexpr (kIsFp8) {
        wgmma_registers_e4m3(scores, queries[step], b, step > 0);
      } else {
        const uint64_t a = operand_descriptor(
            Swizzle::k128, shared_address(shared.queries) + consumer * kWarpgroupQueries * kRowBytes, kGroup);
        wgmma<kKeys>(scores, advance_operand(a, chunk * kQueries * kRowBytes + offset), b, step > 0);
      }
    }
  }

  /// out += weights * values
  __device__ void multiply_values(const Tiles &shared, int stage, bool accumulate) {
    constexpr int kGroup = 8 * kRowBytes;
    const uint32_t address = shared_address(shared.values[stage]);
    const uint64_t values = kIsFp8 ? operand_descriptor(Swizzle::k64, address, 8 * 64)
                                   : operand_descriptor(Swizzle::k128, address, kGroup, kKeys * kRowBytes);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int sums = step > 0 || accumulate;
      if constexpr (kIsFp8)
        wgmma_registers_e4m3(
            out, weights[step],
            advance_operand(values, step / 2 * Tiles::kValueRows * 64 + step % 2 * kStepBytes), sums);
      else
        wgmma_registers(out, weights[step], advance_operand(values, 2 * step * kGroup), sums);
    }
  }

  __device__ void mask(int valid_keys) {
    const int first = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i)
      if (i / 4 * 8 + first + i % 2 >= valid_keys) scores[i] = -INFINITY;
  }

  /// In e4m3 the columns stand in another order than their keys: quantize_values() gave the values the same.
  __device__ void round_weights() {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const float *const from = scores + step * (kIsFp8 ? 16 : 8);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if constexpr (kIsFp8) {
          const float *const four = from + i / 2 * 8 + i % 2 * 2;
          weights[step][i] = pack(four[0], four[1], four[4], four[5]);
        } else {
          weights[step][i] = pack(from[2 * i], from[2 * i + 1]);
        }
      }
    }
  }

  __device__ void rescale_out() {
    if (!softmax.rescales) return;
    if constexpr (kIsFp8)
      for (int row = 0; row < 2; ++row) sums_rescale[row] *= softmax.rescale[row];
#pragma unroll
    for (int i = 0; i < Tiles::kOut; ++i) out[i] *= softmax.rescale[i / 2 % 2];
  }

  __device__ void clear_sums(Tiles &shared, int consumer) {
#pragma unroll
    for (auto &four : shared.sums[consumer]) four[threadIdx.x % 128] = {0, 0, 0, 0};
    sums_rescale[0] = sums_rescale[1] = 1;
  }
  /// Moves `out` to shared memory.
  __device__ void add_to_sums(Tiles &shared, int consumer) {
    each_four_sums(shared, consumer, [](float4 &sums, float4 both, float(&)[4]) { sums = both; });
    sums_rescale[0] = sums_rescale[1] = 1;
  }
  /// Adds what lies there to `out`.
  __device__ void add_sums(Tiles &shared, int consumer) {
    each_four_sums(shared, consumer, [](float4 &, float4 both, float(&out)[4]) {
      out[0] = both.x, out[1] = both.y, out[2] = both.z, out[3] = both.w;
    });
  }
  template <typename Function>
  __device__ void each_four_sums(Tiles &shared, int consumer, Function function) {
#pragma unroll
    for (int i = 0; i < Tiles::kOut / 4; ++i) {
      float(&four)[4] = reinterpret_cast<float(&)[4]>(out[4 * i]);
      float4 &sums = shared.sums[consumer][i][threadIdx.x % 128];
      function(sums,
               float4{fmaf(sums.x, sums_rescale[0], four[0]), fmaf(sums.y, sums_rescale[0], four[1]),
                      fmaf(sums.z, sums_rescale[1], four[2]), fmaf(sums.w, sums_rescale[1], four[3])},
               four);
    }
  }

  __device__ void write(const Params &params, int first_query, int head, int batch) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) % 128 / 32;
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float factor;
      if constexpr (kIsFp8)
        factor = 1 / out[kHeadDim / 2 + 2 * row];
      else
        factor = 1 / row_sum(softmax.sums[row]);
      const int query = first_query + warp * 16 + lane / 4 + 8 * row;
      if (query >= params.num_queries) continue;
      const int64_t start =
          ((static_cast<int64_t>(batch) * params.num_queries + query) * params.heads + head) * kHeadDim;
#pragma unroll
      for (int i = 0; i < kHeadDim / 8; ++i) {
        const int column = i * 8 + lane % 4 * 2;
        float low = out[4 * i + 2 * row] * factor, high = out[4 * i + 2 * row + 1] * factor;
        if constexpr (kIsFp8) {
          const float *const scale = params.value_scale + (batch * params.heads + head) * kHeadDim + column;
          low *= scale[0];
          high *= scale[1];
        }
        *reinterpret_cast<__nv_bfloat162 *>(params.out + start + column) = __floats2bfloat162_rn(low, high);
      }
    }
  }
};

/// Both blocks of the cluster write into this one's tiles and wait for the consumers of both.
__device__ void release(Barrier &empty) {
  if (threadIdx.x % 128 < kClusterBlocks) empty.arrive_at(threadIdx.x % 128);
}

template <typename Element>
__device__ void consume(const Params &params, Shared<Element> &shared, int first_query, int head, int batch) {
  using Tiles = Shared<Element>;
  const int consumer = static_cast<int>(threadIdx.x) / 128 - 1;
  Consumer<Element> state;
  RingPosition<kStages> keys, values;
  const int tiles = (params.num_keys + Tiles::kKeys - 1) / Tiles::kKeys;

  shared.queries_full.wait(0);
  if constexpr (Tiles::kIsFp8) state.load_queries(shared, consumer);
  shared.keys_full[keys.stage].wait(keys.parity);
  wgmma_fence();
  state.multiply_keys(shared, consumer, keys.stage);
  wgmma_commit();
  wgmma_wait<0>();
  release(shared.keys_empty[keys.stage]);
  keys.advance();
  if (params.num_keys % Tiles::kKeys != 0) state.mask(params.num_keys % Tiles::kKeys);
  state.softmax.start(state.scores, params.scale_log2);
  state.softmax.weigh(state.scores, params.scale_log2);
  state.round_weights();

  if constexpr (Tiles::kIsFp8) state.clear_sums(shared, consumer);
  bool accumulates = false;
  const auto wait_for_keys = [&](int tile) {
    if (tile < tiles) shared.keys_full[keys.stage].wait(keys.parity);
  };
  wait_for_keys(1);
  for (int tile = 1; tile < tiles; ++tile) {
    wgmma_fence();
    state.multiply_keys(shared, consumer, keys.stage);
    wgmma_commit();
    shared.values_full[values.stage].wait(values.parity);
    state.multiply_values(shared, values.stage, accumulates);
    accumulates = true;
    wgmma_commit();
    wgmma_wait<1>();
    release(shared.keys_empty[keys.stage]);
    keys.advance();
    state.softmax.weigh(state.scores, params.scale_log2);
    keep_order(state.scores);
    wait_for_keys(tile + 1);
    wgmma_wait<0>();
    release(shared.values_empty[values.stage]);
    values.advance();
    if constexpr (Tiles::kIsFp8)
      if (tile % Format<Element>::kTilesInRegisters == 0) {
        state.add_to_sums(shared, consumer);
        accumulates = false;
      }
    state.rescale_out();
    state.round_weights();
  }

  shared.values_full[values.stage].wait(values.parity);
  wgmma_fence();
  state.multiply_values(shared, values.stage, accumulates);
  wgmma_commit();
  wgmma_wait<0>();
  if constexpr (Tiles::kIsFp8) state.add_sums(shared, consumer);
  state.write(params, first_query + consumer * kWarpgroupQueries, head, batch);
}

template <typename Element>
__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(kThreads, 1)
    attention_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(kAlignment) char memory[];
  auto &shared = *reinterpret_cast<Shared<Element> *>(memory);
  if (threadIdx.x == 0) {
    shared.queries_full.init(1);
    for (int stage = 0; stage < kStages; ++stage) {
      shared.keys_full[stage].init(1);
      shared.values_full[stage].init(1);
      shared.keys_empty[stage].init(kClusterBlocks * kConsumers);
      shared.values_empty[stage].init(kClusterBlocks * kConsumers);
    }
    make_barriers_visible();
  }
  write_ones(shared);
  sync_cluster();
  const int first_query = static_cast<int>(blockIdx.x) * kQueries;
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  if (threadIdx.x < 128) {
    give_up_registers<24>();
    if (threadIdx.x == 0) produce(params, shared, first_query, head, batch);
  } else {
    take_registers<240>();
    consume(params, shared, first_query, head, batch);
  }
  sync_cluster();  // the other block may still write into this one's barriers
}

/// Rows of heads, [batch, tokens, heads, head_dim], in boxes of so many tokens of one head.
template <typename Element>
bool map_rows(const HeadRows &rows, int tokens, int heads, int batch, int box_tokens, CUtensorMap *map) {
  constexpr cuuint64_t kBytes = sizeof(Element);
  return make_tensor_map(
      map, rows.data, sizeof(Element) == 2 ? ElementType::kBfloat16 : ElementType::kByte,
      {kHeadDim, static_cast<uint64_t>(heads), static_cast<uint64_t>(tokens), static_cast<uint64_t>(batch)},
      {kHeadDim * kBytes, static_cast<uint64_t>(rows.token_stride) * kBytes,
       static_cast<uint64_t>(rows.batch_stride) * kBytes},
      {kRowBytes / kBytes, 1, static_cast<uint32_t>(box_tokens), 1}, Swizzle::k128);
}

template <typename Element>
cudaError_t launch(const Attention &attention, Params &params, cudaStream_t stream) {
  params.out = attention.out;
  params.num_queries = attention.num_queries;
  params.num_keys = attention.num_keys;
  params.heads = attention.heads;
  params.scale_log2 = attention.scale * 1.44269504f;
  constexpr int kBytes = sizeof(Shared<Element>);
  const auto kernel = attention_kernel<Element>;
  const cudaError_t ready =  // each time, for it holds for one device
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (ready != cudaSuccess) return ready;
  constexpr int kClusterQueries = kClusterBlocks * kQueries;
  const auto clusters =
      static_cast<unsigned>((attention.num_queries + kClusterQueries - 1) / kClusterQueries);
  const dim3 grid(clusters * kClusterBlocks, static_cast<unsigned>(attention.heads),
                  static_cast<unsigned>(attention.batch));
  kernel<<<grid, kThreads, kBytes, stream>>>(params);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_attention(const Attention &attention, const HeadRows &queries, const HeadRows &keys,
                             const HeadRows &values, cudaStream_t stream) {
  using Element = __nv_bfloat16;
  constexpr int kKeys = Format<Element>::kKeys;
  Params params;
  const auto map = [&](const HeadRows &rows, int tokens, int box, CUtensorMap *to) {
    return map_rows<Element>(rows, tokens, attention.heads, attention.batch, box, to);
  };
  if (!map(queries, attention.num_queries, kQueries, &params.queries) ||
      !map(keys, attention.num_keys, kKeys, &params.keys) ||
      !map(values, attention.num_keys, kKeys, &params.values))
    return cudaErrorInvalidValue;
  return launch<Element>(attention, params, stream);
}

cudaError_t launch_attention_fp8(const Attention &attention, const HeadRows &queries, const HeadRows &keys,
                                 const QuantizedValues &values, cudaStream_t stream) {
  using Element = __nv_fp8_e4m3;
  constexpr int kKeys = Format<Element>::kKeys;
  Params params;
  params.value_scale = values.scale;
  const auto map = [&](const HeadRows &rows, int tokens, int box, CUtensorMap *to) {
    return map_rows<Element>(rows, tokens, attention.heads, attention.batch, box, to);
  };
  const auto columns = static_cast<uint64_t>(values.columns);
  const auto heads = static_cast<uint64_t>(attention.heads);
  if (!map(queries, attention.num_queries, kQueries, &params.queries) ||
      !map(keys, attention.num_keys, kKeys / kClusterBlocks, &params.keys) ||
      !make_tensor_map(&params.values, values.data, ElementType::kByte,
                       {columns, kHeadDim, heads, static_cast<uint64_t>(attention.batch)},
                       {columns, columns * kHeadDim, columns * kHeadDim * heads},
                       {64, kHeadDim / kClusterBlocks, 1, 1}, Swizzle::k64))
    return cudaErrorInvalidValue;
  return launch<Element>(attention, params, stream);
}

}  // namespace wan::sm90
