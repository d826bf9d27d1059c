// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Implicit GEMM: rows are pixels, columns are output channels. What makes it fast where cuDNN is not: a block
// brings a tile of pixels with its border into shared memory once for every frame and block of channels, and
// all taps read it there, shifted. The tensor cores take any start row and any distance between groups of 8
// rows, so that a tap is an address.
//
// One producer warp keeps two rings of shared memory filled: pixels and weights. Two consumer warpgroups
// multiply, each for a strip of 8x16 pixels of its own, and finish the outputs in their registers: bias,
// residual, RMS norm and SiLU. The second one starts late and stays behind, so that one multiplies while the
// other finishes.
#include <algorithm>

#include "ops/cuda/conv.h"
#include "ops/cuda/conv_math.cuh"
#include "ops/cuda/hopper.cuh"
#include "ops/cuda/tensor_map.h"

namespace wan::sm90 {

namespace {

constexpr int kStripHeight = 8, kStripWidth = 16;  // pixels
constexpr int kProductWidth = 8;                   // 8x8 pixels are the 64 rows of one product
constexpr int kProducts = kStripWidth / kProductWidth;
constexpr int kConsumers = 2;  // warpgroups
constexpr int kConsumerWarps = 4 * kConsumers;
constexpr int kThreads = 128 * (1 + kConsumers);
constexpr int kRowBytes = kChannelBlock * static_cast<int>(sizeof(__nv_bfloat16));  // 64: one swizzled row
constexpr int kAlignment = 1024;

struct Params : ConvGeometry {
  explicit Params(const Conv &conv) : ConvGeometry(conv), conv(conv) {}

  CUtensorMap frames[kMaxFrames];
  Conv conv;
  int columns;  // tiles of the channels
  int strips_x, strips_y, num_strips, num_tiles;
};

/// kN output channels at a time; kTaps is the size of the taps in space.
template <int kN, int kTaps>
struct Shared {
  static constexpr int kWidth = kStripWidth + kTaps - 1, kHeight = kStripHeight + kTaps - 1;
  static constexpr int kPixelBytes = kWidth * kHeight * kRowBytes;
  static constexpr int kPixelPitch = (kPixelBytes + kAlignment - 1) / kAlignment * kAlignment;
  // Wide tiles have much work for a tap, narrow ones need fewer waits.
  static constexpr int kStageTaps = kN > 128 ? 1 : kTaps;
  static constexpr int kTapBytes = kN * kRowBytes;
  static constexpr int kWeightBytes = kStageTaps * kTapBytes;
  static constexpr int kWeightPitch = (kWeightBytes + kAlignment - 1) / kAlignment * kAlignment;
  // As much as fits into 227 KB.
  static constexpr int kPixelStages = kTaps == 1 ? 7 : kN > 96 ? 3 : 4;
  static constexpr int kWeightStages = kTaps == 1 ? 7 : kN > 128 ? 12 : kN > 96 ? 6 : 7;
  /// How far the second consumer stays behind, in stages of weights; some must be left to be filled
  /// meanwhile.
  static constexpr int kStagesPerPixels = kTaps * kTaps / kStageTaps;
  static constexpr int kLag = std::min(kWeightStages * 2 / 3, (kPixelStages - 1) * kStagesPerPixels);

  alignas(kAlignment) char pixels[kPixelStages][kConsumers][kPixelPitch];
  alignas(kAlignment) char weights[kWeightStages][kWeightPitch];
  Barrier pixels_full[kPixelStages], pixels_empty[kPixelStages];
  Barrier weights_full[kWeightStages], weights_empty[kWeightStages];
};

/// One consumer's part of a tile. Strips are counted with frames fastest, so that those of one tile see
/// almost the same frames, and groups and columns of channels before them: blocks that run side by side share
/// what they read.
struct Strip {
  int group, column, frame, x, y;

  __device__ Strip(const Params &params, int tile, int consumer) {
    column = tile % params.columns;
    tile /= params.columns;
    group = tile % params.groups;
    int number = tile / params.groups * kConsumers + consumer;
    frame = number % params.conv.num_outputs;
    // One strip too many lies below the picture: it reads zeros and writes nothing.
    y = number < params.num_strips ? number / params.conv.num_outputs % params.strips_y * kStripHeight
                                   : params.conv.height + kStripHeight;
    x = number / params.conv.num_outputs / params.strips_y * kStripWidth;
  }
};

/// Taps before this one see only frames before the start of the stream.
__device__ inline int first_tap(const Params &params, int tile) {
  const int frame = max(Strip(params, tile, 0).frame, Strip(params, tile, 1).frame);
  return max(0, params.missing_frames - frame);
}

/// The residual will be wanted soon.
__device__ void prefetch_residual(const Params &params, const Strip &strip) {
  const Conv &conv = params.conv;
  const int rows = min(kStripHeight, conv.height - strip.y), columns = min(kStripWidth, conv.width - strip.x);
  if (strip.column > 0 || columns <= 0) return;
  for (int row = 0; row < rows; ++row) {
    const int64_t pixel =
        (static_cast<int64_t>(strip.frame) * conv.height + strip.y + row) * conv.width + strip.x;
    prefetch_bytes(conv.residual + pixel * params.channels, columns * params.channels * 2);
  }
}

template <int kN, int kTaps>
__device__ void produce(const Params &params, Shared<kN, kTaps> &shared) {
  using Layout = Shared<kN, kTaps>;
  RingPosition<Layout::kPixelStages> pixel;
  RingPosition<Layout::kWeightStages> weight;
  const int channel_blocks = params.conv.in_channels / kChannelBlock;
  const int padded_channels = kN == kColourChannels ? kColourChannels : params.channels;
  const int64_t tap_pitch = int64_t{padded_channels} * kRowBytes;  // all the channels of a tap lie together
  const int taps_in_space = kTaps * kTaps;
  for (int tile = blockIdx.x; tile < params.num_tiles; tile += gridDim.x) {
    const Strip strips[kConsumers] = {{params, tile, 0}, {params, tile, 1}};
    const int group = strips[0].group;
    // 3x3 taps start one pixel before; the 2x2 taps of a phase start there or at the pixel itself.
    const int border_x = (kTaps == 3) + (kTaps == 2 && group % 2 == 0);
    const int border_y = (kTaps == 3) + (kTaps == 2 && group / 2 == 0);
    const int start = first_tap(params, tile);
    const char *weights =
        reinterpret_cast<const char *>(params.conv.weight) +
        int64_t{group * params.taps_time + start} * channel_blocks * taps_in_space * tap_pitch +
        strips[0].column * Layout::kTapBytes;
    for (int tap = start; tap < params.taps_time; ++tap) {
      if (params.conv.residual && tap == params.taps_time - 1)
        for (const Strip &strip : strips) prefetch_residual(params, strip);
      for (int block = 0; block < channel_blocks; ++block) {
        Barrier &pixels_full = shared.pixels_full[pixel.stage];
        shared.pixels_empty[pixel.stage].wait(pixel.parity ^ 1);
        pixels_full.arrive_and_expect(kConsumers * Layout::kPixelBytes);
#pragma unroll
        for (int consumer = 0; consumer < kConsumers; ++consumer) {
          const Strip &strip = strips[consumer];
          const int frame = strip.frame + tap - params.missing_frames;
          // A frame before the start is read where there is nothing, which gives zeros.
          copy_box(shared.pixels[pixel.stage][consumer], &params.frames[max(frame, 0)], pixels_full,
                   block * kChannelBlock, strip.x - border_x,
                   frame < 0 ? params.conv.height : strip.y - border_y);
        }
        pixel.advance();
        for (int first = 0; first < taps_in_space; first += Layout::kStageTaps) {
          shared.weights_empty[weight.stage].wait(weight.parity ^ 1);
          shared.weights_full[weight.stage].arrive_and_expect(Layout::kWeightBytes);
#pragma unroll
          for (int i = 0; i < Layout::kStageTaps; ++i, weights += tap_pitch)
            copy_bytes(shared.weights[weight.stage] + i * Layout::kTapBytes, weights, Layout::kTapBytes,
                       shared.weights_full[weight.stage]);
          weight.advance();
        }
      }
    }
  }
}

/// Lane q of four gets word q of all: w[i] is then what lane i had as w[q].
__device__ inline void transpose_in_quad(uint32_t (&w)[4]) {
  const int lane = threadIdx.x % 4;
#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const bool upper = lane & bit;
      const uint32_t got = __shfl_xor_sync(~0u, upper ? w[i] : w[i + bit], bit);
      (upper ? w[i] : w[i + bit]) = got;
    }
  }
}

/// The accumulators of one product: d[4 b + 2 h + c] is column 8 b + 2 (lane % 4) + c of pixel (lane / 4, 2
/// warp
/// + h) of 8x8.
template <int kN>
using Accumulators = float[kN / 2];

/// Rounds half h of the accumulators and stores it: four lanes have 32 columns at a time, each of them 8.
template <int kN>
__device__ inline void store_rows(const Accumulators<kN> &d, int h, __nv_bfloat16 *pixel, bool inside) {
#pragma unroll
  for (int b = 0; b < kN / 8; b += 4) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = pack(d[4 * (b + i) + 2 * h], d[4 * (b + i) + 2 * h + 1]);
    transpose_in_quad(words);
    if (inside)
      // Streaming: it is read only when the caches have long been overwritten.
      __stcs(reinterpret_cast<uint4 *>(pixel + 8 * (b + threadIdx.x % 4)),
             make_uint4(words[0], words[1], words[2], words[3]));
  }
}

template <int kN>
__device__ inline void add_rows(Accumulators<kN> &d, int h, const __nv_bfloat16 *pixel, bool inside) {
  uint4 loaded[kN / 32];
#pragma unroll
  for (int b = 0; b < kN / 32; ++b)
    loaded[b] = inside ? *reinterpret_cast<const uint4 *>(pixel + 8 * (4 * b + threadIdx.x % 4)) : uint4{};
#pragma unroll
  for (int b = 0; b < kN / 32; ++b) {
    uint32_t words[4] = {loaded[b].x, loaded[b].y, loaded[b].z, loaded[b].w};
    transpose_in_quad(words);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = unpack(words[i]);
      d[4 * (4 * b + i) + 2 * h] += pair.x;
      d[4 * (4 * b + i) + 2 * h + 1] += pair.y;
    }
  }
}

template <int kN>
__device__ inline void add_bias(Accumulators<kN> &d, const float *bias) {
#pragma unroll
  for (int b = 0; b < kN / 8; ++b) {
    const float2 pair = *reinterpret_cast<const float2 *>(bias + 8 * b + 2 * (threadIdx.x % 4));
    d[4 * b] += pair.x;
    d[4 * b + 1] += pair.y;
    d[4 * b + 2] += pair.x;
    d[4 * b + 3] += pair.y;
  }
}

/// SiLU(RMS_norm(d) * gamma) of both halves, where the columns are all the channels.
template <int kN>
__device__ inline void activate(Accumulators<kN> &d, const float *gamma) {
  float factors[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = 0;
#pragma unroll
    for (int b = 0; b < kN / 8; ++b) {
      const float low = d[4 * b + 2 * h], high = d[4 * b + 2 * h + 1];
      sum += low * low + high * high;
    }
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    factors[h] = 0.5f * norm_factor(sum, kN);
  }
#pragma unroll
  for (int b = 0; b < kN / 8; ++b) {
    const float2 scale = *reinterpret_cast<const float2 *>(gamma + 8 * b + 2 * (threadIdx.x % 4));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      d[4 * b + 2 * h] = silu_of_twice(d[4 * b + 2 * h] * factors[h] * scale.x);
      d[4 * b + 2 * h + 1] = silu_of_twice(d[4 * b + 2 * h + 1] * factors[h] * scale.y);
    }
  }
}

/// The colours, which are the first three columns.
template <int kN>
__device__ inline void store_planes(const Accumulators<kN> &d, const Params &params, const Strip &strip,
                                    int x, int y) {
  const Conv &conv = params.conv;
  const int lane = threadIdx.x % 4;
  if (lane > 1 || x >= conv.width) return;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (y + h >= conv.height) return;
    float *pixel = conv.planes + 2 * lane * conv.plane_stride +
                   (static_cast<int64_t>(strip.frame) * conv.height + y + h) * conv.width + x;
    pixel[0] = d[2 * h];
    if (lane == 0) pixel[conv.plane_stride] = d[2 * h + 1];
  }
}

template <int kN>
__device__ inline void store_channels(Accumulators<kN> &d, const Params &params, const Strip &strip, int x,
                                      int y) {
  const Conv &conv = params.conv;
  int64_t offset[2];
  bool inside[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    int64_t frame = strip.frame, row = y + h, column = x, height = conv.height, width = conv.width;
    inside[h] = row < height && column < width;
    if (conv.kind == ConvKind::kDoubleFrames) frame = 2 * frame + strip.group;
    if (conv.kind == ConvKind::kUpsample2x) {
      row = 2 * row + strip.group / 2;
      column = 2 * column + strip.group % 2;
      height *= 2;
      width *= 2;
    }
    offset[h] = ((frame * height + row) * width + column) * params.channels + strip.column * kN;
  }
  if (conv.residual) {
#pragma unroll
    for (int h = 0; h < 2; ++h) add_rows<kN>(d, h, conv.residual + offset[h], inside[h]);
  }
  if (conv.out) {
#pragma unroll
    for (int h = 0; h < 2; ++h) store_rows<kN>(d, h, conv.out + offset[h], inside[h]);
  }
  if (conv.activated) {
    activate<kN>(d, conv.gamma);
#pragma unroll
    for (int h = 0; h < 2; ++h) store_rows<kN>(d, h, conv.activated + offset[h], inside[h]);
  }
}

/// From accumulators to memory; (x, y) is the pixel of half 0.
template <int kN>
__device__ inline void finish(Accumulators<kN> &d, const Params &params, const Strip &strip, int x, int y) {
  const Conv &conv = params.conv;
  const int first = conv.kind == ConvKind::kDoubleFrames ? strip.group * params.channels : 0;
  add_bias<kN>(d, conv.bias + first + strip.column * kN);
  if constexpr (kN == kColourChannels)
    store_planes<kN>(d, params, strip, x, y);
  else
    store_channels<kN>(d, params, strip, x, y);
}

template <int kN, int kTaps>
__device__ void consume(const Params &params, Shared<kN, kTaps> &shared) {
  using Layout = Shared<kN, kTaps>;
  constexpr int kPixelRow = Layout::kWidth * kRowBytes;
  RingPosition<Layout::kPixelStages> pixel;
  RingPosition<Layout::kWeightStages> weight;
  const int consumer = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const int channel_blocks = params.conv.in_channels / kChannelBlock;
  int stages_to_lag = Layout::kLag;
  if (consumer == 1) wait_for_leader();
  for (int tile = blockIdx.x; tile < params.num_tiles; tile += gridDim.x) {
    const int steps = (params.taps_time - first_tap(params, tile)) * channel_blocks;
    float d[kProducts][kN / 2];
    int accumulate = 0;
    Barrier *weights_done = nullptr, *pixels_done = nullptr;
    for (int step = 0; step < steps; ++step) {
      shared.pixels_full[pixel.stage].wait(pixel.parity);
      const uint32_t pixels = shared_address(shared.pixels[pixel.stage][consumer]);
#pragma unroll
      for (int first = 0; first < kTaps * kTaps; first += Layout::kStageTaps) {
        shared.weights_full[weight.stage].wait(weight.parity);
        const uint32_t weights = shared_address(shared.weights[weight.stage]);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < Layout::kStageTaps; ++i) {
          const int row = (first + i) / kTaps, column = (first + i) % kTaps;
#pragma unroll
          for (int k = 0; k < kRowBytes; k += 32) {  // 16 channels
            const uint64_t b =
                operand_descriptor(Swizzle::k64, weights + i * Layout::kTapBytes + k, 8 * kRowBytes);
#pragma unroll
            for (int product = 0; product < kProducts; ++product) {
              const int offset = row * kPixelRow + (product * kProductWidth + column) * kRowBytes + k;
              wgmma<kN>(d[product], operand_descriptor(Swizzle::k64, pixels + offset, kPixelRow), b,
                        accumulate);
            }
            accumulate = 1;
          }
        }
        wgmma_commit();
        // The products before these are done: what they read can be filled again.
        wgmma_wait<1>();
        if (lane == 0) {
          if (weights_done) weights_done->arrive();
          if (first == 0 && pixels_done) pixels_done->arrive();
        }
        weights_done = &shared.weights_empty[weight.stage];
        weight.advance();
        if (consumer == 0 && --stages_to_lag == 0) wake_follower();
      }
      pixels_done = &shared.pixels_empty[pixel.stage];
      pixel.advance();
    }
    wgmma_wait<0>();
    if (lane == 0) {
      weights_done->arrive();
      pixels_done->arrive();
    }
    const Strip strip(params, tile, consumer);
#pragma unroll
    for (int product = 0; product < kProducts; ++product)
      finish<kN>(d[product], params, strip, strip.x + product * kProductWidth + lane / 4, strip.y + 2 * warp);
  }
  if (consumer == 0 && stages_to_lag > 0) wake_follower();
}

template <int kN, int kTaps>
__global__ void __launch_bounds__(kThreads, 1) conv_kernel(const __grid_constant__ Params params) {
  extern __shared__ char memory[];
  auto &shared = *reinterpret_cast<Shared<kN, kTaps> *>(
      (reinterpret_cast<uintptr_t>(memory) + kAlignment - 1) / kAlignment * kAlignment);
  if (threadIdx.x == 0) {
    for (Barrier &barrier : shared.pixels_full) barrier.init(1);
    for (Barrier &barrier : shared.weights_full) barrier.init(1);
    for (Barrier &barrier : shared.pixels_empty) barrier.init(kConsumerWarps);
    for (Barrier &barrier : shared.weights_empty) barrier.init(kConsumerWarps);
    make_barriers_visible();
  }
  __syncthreads();
  if (threadIdx.x < 128) {
    give_up_registers<24>();
    if (threadIdx.x == 0) produce(params, shared);
  } else {
    take_registers<240>();
    consume(params, shared);
  }
}

/// A frame [height, width, channels], read in boxes of so many pixels and a block of channels.
bool map_frame(const Conv &conv, const void *frame, cuuint32_t box_width, cuuint32_t box_height,
               CUtensorMap *map) {
  const auto channels = static_cast<cuuint64_t>(conv.in_channels),
             width = static_cast<cuuint64_t>(conv.width);
  return make_tensor_map(
      map, frame, ElementType::kBfloat16, {channels, width, static_cast<cuuint64_t>(conv.height)},
      {channels * 2, width * channels * 2}, {kChannelBlock, box_width, box_height}, Swizzle::k64);
}

template <int kN, int kTaps>
cudaError_t launch(Params &params, cudaStream_t stream) {
  using Layout = Shared<kN, kTaps>;
  const Conv &conv = params.conv;
  for (int i = 0; i < conv.num_frames; ++i)
    if (!map_frame(conv, conv.frames[i], Layout::kWidth, Layout::kHeight, &params.frames[i]))
      return cudaErrorInvalidValue;
  params.columns = (params.channels + kN - 1) / kN;
  params.num_tiles = (params.num_strips + kConsumers - 1) / kConsumers * params.groups * params.columns;
  constexpr int kBytes = sizeof(Layout) + kAlignment;
  const auto kernel = conv_kernel<kN, kTaps>;
  const cudaError_t ready =  // each time, for it holds for one device
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (ready != cudaSuccess) return ready;
  kernel<<<std::min(params.num_tiles, multiprocessors()), kThreads, kBytes, stream>>>(params);
  return cudaGetLastError();
}

/// The widest tiles are the most efficient, unless they leave more of the chip idle in the last wave. RMS
/// norm wants all channels in one tile.
int choose_tile_channels(const Params &params) {
  int best = 0;
  int64_t least = INT64_MAX;
  for (const int candidate : kTileChannels) {
    if (params.channels % candidate != 0 || (params.conv.activated && candidate != params.channels)) continue;
    const int64_t tiles = int64_t{(params.num_strips + kConsumers - 1) / kConsumers} * params.groups *
                          (params.channels / candidate);
    const int64_t waves = (tiles + multiprocessors() - 1) / multiprocessors();
    const int64_t cost = waves * (candidate + 8);  // 8: what a tile costs besides its channels
    if (cost < least) {
      least = cost;
      best = candidate;
    }
  }
  return best;
}

template <int kTaps>
cudaError_t launch_for_channels(Params &params, cudaStream_t stream) {
  if constexpr (kTaps == 3)
    if (params.conv.planes) return launch<kColourChannels, 3>(params, stream);
  switch (choose_tile_channels(params)) {
    case 192:
      return launch<192, kTaps>(params, stream);
    case 128:
      return launch<128, kTaps>(params, stream);
    case 96:
      return launch<96, kTaps>(params, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t launch_conv(const Conv &conv, cudaStream_t stream) {
  Params params(conv);
  params.strips_x = (conv.width + kStripWidth - 1) / kStripWidth;
  params.strips_y = (conv.height + kStripHeight - 1) / kStripHeight;
  params.num_strips = params.strips_x * params.strips_y * conv.num_outputs;
  switch (conv.kind) {
    case ConvKind::kCausal3x3x3:
      return launch_for_channels<3>(params, stream);
    case ConvKind::kUpsample2x:
      return launch_for_channels<2>(params, stream);
    case ConvKind::kDoubleFrames:
      return launch_for_channels<1>(params, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace wan::sm90
