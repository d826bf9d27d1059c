// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Implicit GEMM in instructions that all GPUs from sm_80 on have: rows are pixels, columns are output
// channels. As in conv_sm90.cu, a block brings a tile of pixels with its border into shared memory once for
// every frame and block of channels, and all taps read it there, shifted.
//
// A warp has four rows of 16 pixels. One step takes a column of taps: the rows of pixels that the first tap
// multiplies are, but for one, those of the next, so that they are loaded into registers once for all of the
// column. While a step is multiplied, the next one's pixels and weights are copied to shared memory, across
// the tiles of a block, so that copies go on while outputs are finished.
#pragma once

#include <algorithm>

#include "ops/cuda/ampere.cuh"
#include "ops/cuda/conv.h"
#include "ops/cuda/conv_math.cuh"

namespace wan::sm80 {

constexpr int kTileWidth = 16;                                                      // pixels
constexpr int kWarpRows = 4;                                                        // of so many pixels
constexpr int kRowBytes = kChannelBlock * static_cast<int>(sizeof(__nv_bfloat16));  // of a pixel or a weight
constexpr int kPieces = kRowBytes / 16;
constexpr int kSharedLimit = 99 << 10;  // of a block, on the GPUs that have least

struct Params : ConvGeometry {
  Conv conv;
  int columns;  // tiles of the channels
  int tiles_x, tiles_y, num_tiles;
};

/// Where piece `piece` of a row lies: swizzled, so that any 8 successive rows hit all memory banks. Packed
/// weights are swizzled so already.
__device__ inline int swizzled(int row, int piece) {
  return row * kRowBytes + (piece ^ row / 2 % kPieces) * 16;
}

/// The output channels of a group of 16 stand in such an order in shared memory that a lane's accumulators
/// are four neighbouring ones: 4 (lane % 4) and the next three. Returns that of a row there.
__device__ inline int channel_of_row(int row) {
  return row / 16 * 16 + row % 8 / 2 * 4 + row / 8 % 2 * 2 + row % 2;
}

/// kN output channels at a time; kTaps is the size of the taps in space.
template <int kN, int kTaps>
struct Layout {
  static constexpr int kWarpsN = kN == 192 ? 4 : kN == kColourChannels ? 1 : 2;
  static constexpr int kWarpsM = kN == 192 ? 2 : 4;
  static constexpr int kWarpN = kN / kWarpsN;
  static constexpr int kThreads = 32 * kWarpsM * kWarpsN;
  static constexpr int kTileHeight = kWarpRows * kWarpsM;
  static constexpr int kTilePixels = kTileHeight * kTileWidth;

  static constexpr int kWidth = kTileWidth + kTaps - 1, kHeight = kTileHeight + kTaps - 1;  // with the border
  static constexpr int kPixelCopies = (kWidth * kHeight * kPieces + kThreads - 1) / kThreads;
  static constexpr int kWeightCopies = (kN * kPieces + kThreads - 1) / kThreads;
  static constexpr int kPixelBytes = kWidth * kHeight * kRowBytes;
  static constexpr int kTapBytes = kN * kRowBytes;
  static constexpr int kWeightBytes = kTaps * kTapBytes;
  // A step of several taps is long enough to hide the copies of the next one. Pixels serve kTaps steps.
  static constexpr int kStages = kTaps == 1 ? 4 : 2;
  static constexpr int kPixelStages = kTaps == 1 ? kStages : 2;

  struct Shared {
    alignas(128) char pixels[kPixelStages][kPixelBytes];
    alignas(128) char weights[kStages][kWeightBytes];
    float sums[kWarpsN][kTilePixels];  // of squares, of each warp's channels
  };
  static_assert(sizeof(Shared) <= kSharedLimit);
  static_assert(kThreads / kPieces % 16 == 0);  // so that a thread's rows are alike in swizzle and order
};

/// A place in a ring of buffers.
template <int kStages>
__device__ inline int next_stage(int stage) {
  return stage + 1 == kStages ? 0 : stage + 1;
}

/// Tiles are counted with channels fastest, then groups and frames: blocks that run side by side share what
/// they read.
template <int kN, int kTaps>
struct Tile {
  int group, column, frame, x, y;

  __device__ Tile(const Params &params, int number) {
    column = number % params.columns;
    number /= params.columns;
    group = number % params.groups;
    number /= params.groups;
    frame = number % params.conv.num_outputs;
    number /= params.conv.num_outputs;
    y = number % params.tiles_y * Layout<kN, kTaps>::kTileHeight;
    x = number / params.tiles_y * kTileWidth;
  }
  /// Taps before this one see only frames before the start of the stream.
  __device__ int first_tap(const Params &params) const { return max(0, params.missing_frames - frame); }
};

/// Copies one step after the other to shared memory, for all tiles of the block.
template <int kN, int kTaps>
class Copier {
  using Layout = sm80::Layout<kN, kTaps>;

 public:
  __device__ Copier(const Params &params, typename Layout::Shared &shared)
      : params_(params),
        pixels_(shared_address(shared.pixels)),
        weights_(shared_address(shared.weights)),
        tile_(blockIdx.x) {
    begin_tile();
  }

  /// The copies of the next step are a group, which is empty behind the last one.
  __device__ void copy_step() {
    if (tile_ < params_.num_tiles) {
      if (column_ == 0) copy_pixels();
      copy_weights();
      advance();
    }
    commit_copies();
  }

 private:
  __device__ void begin_tile() {
    if (tile_ >= params_.num_tiles) return;
    const Tile<kN, kTaps> tile(params_, tile_);
    tap_ = tile.first_tap(params_);
    frame_ = tile.frame - params_.missing_frames;
    const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces ^ row / 2 % kPieces;
    from_ = reinterpret_cast<const char *>(params_.conv.weight) +
            int64_t{tile.group * params_.taps_time + tap_} * blocks() * block_pitch() +
            tile.column * Layout::kTapBytes + swizzled(channel_of_row(row), piece);
    // 3x3 taps start one pixel before; the 2x2 taps of a phase start there or at the pixel itself.
    x_ = tile.x - (kTaps == 3) - (kTaps == 2 && tile.group % 2 == 0);
    y_ = tile.y - (kTaps == 3) - (kTaps == 2 && tile.group / 2 == 0);
  }

  __device__ void copy_pixels() {
    const Conv &conv = params_.conv;
    const int first = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
    const auto *frame =
        static_cast<const __nv_bfloat16 *>(conv.frames[frame_ + tap_]) + block_ * kChannelBlock + piece * 8;
    const uint32_t to = pixels_ + pixel_stage_ * Layout::kPixelBytes + swizzled(first, piece);
#pragma unroll
    for (int i = 0; i < Layout::kPixelCopies; ++i) {
      const int pixel = first + i * (Layout::kThreads / kPieces);
      const int x = x_ + pixel % Layout::kWidth, y = y_ + pixel / Layout::kWidth;
      const bool inside = x >= 0 && x < conv.width && y >= 0 && y < conv.height;
      if (pixel < Layout::kWidth * Layout::kHeight)
        copy_async(to + i * (Layout::kThreads * 16),
                   frame + (inside ? int64_t{y * conv.width + x} * conv.in_channels : 0), inside);
    }
    pixel_stage_ = next_stage<Layout::kPixelStages>(pixel_stage_);
  }

  __device__ void copy_weights() {
    const uint32_t to = weights_ + weight_stage_ * Layout::kWeightBytes + threadIdx.x * 16;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) {
      const char *from = from_ + (tap * kTaps + column_) * tap_pitch();
#pragma unroll
      for (int i = 0; i < Layout::kWeightCopies; ++i)
        if (threadIdx.x + i * Layout::kThreads < kN * kPieces)
          copy_async(to + tap * Layout::kTapBytes + i * (Layout::kThreads * 16),
                     from + i * (Layout::kThreads * 16));
    }
    weight_stage_ = next_stage<Layout::kStages>(weight_stage_);
  }

  __device__ void advance() {
    if (++column_ < kTaps) return;
    column_ = 0;
    from_ += block_pitch();
    if (++block_ < blocks()) return;
    block_ = 0;
    if (++tap_ < params_.taps_time) return;
    tile_ += gridDim.x;
    begin_tile();
  }

  __device__ int blocks() const {
    return params_.conv.in_channels / kChannelBlock;
  }

  /// All the channels of a tap lie together.
  __device__ int tap_pitch() const {
    return (kN == kColourChannels ? kColourChannels : params_.channels) * kRowBytes;
  }
  __device__ int block_pitch() const {
    return kTaps * kTaps * tap_pitch();
  }

  const Params &params_;
  const uint32_t pixels_, weights_;              // in shared memory
  int tile_, tap_ = 0, block_ = 0, column_ = 0;  // of the next step
  int frame_ = 0;                                // of tap 0
  int x_ = 0, y_ = 0;                            // of the first pixel, with the border
  const char *from_ = nullptr;                   // the block's weights, and of them the thread's first
  int pixel_stage_ = 0, weight_stage_ = 0;
};

/// d[8 g + 4 i + 2 h + c] of row m of the warp: pixel lane / 4 + 8 h, channel 16 g + 4 (lane % 4) + 2 i + c.
template <typename Layout>
using Accumulators = float[kWarpRows][Layout::kWarpN / 2];

/// A column of taps by 16 channels, of which `piece` is the first. pixels: of the warp's first tap and row;
/// first: its place there for this lane. weights: of the warp's channels.
template <typename Layout, int kTaps>
__device__ inline void multiply(Accumulators<Layout> &d, uint32_t pixels, int first, uint32_t weights,
                                int piece) {
  const int lane = threadIdx.x % 32;
  const int weight_row = lane / 16 * 8 + lane % 8;
  uint32_t a[kWarpRows + kTaps - 1][4];
#pragma unroll
  for (int row = 0; row < kWarpRows + kTaps - 1; ++row)
    load_matrices(a[row], pixels + swizzled(first + row * Layout::kWidth, piece + lane / 16));
#pragma unroll
  for (int tap = 0; tap < kTaps; ++tap)
#pragma unroll
    for (int g = 0; g < Layout::kWarpN / 16; ++g) {
      uint32_t b[4];
      load_matrices(b, weights + tap * Layout::kTapBytes + g * (16 * kRowBytes) +
                           swizzled(weight_row, piece + lane / 8 % 2));
#pragma unroll
      for (int m = 0; m < kWarpRows; ++m) {
        multiply_add(&d[m][8 * g], a[m + tap], b[0], b[1]);
        multiply_add(&d[m][8 * g + 4], a[m + tap], b[2], b[3]);
      }
    }
}

/// What a warp does with its sums: from accumulators to memory.
template <int kN, int kTaps>
class Finisher {
  using Layout = sm80::Layout<kN, kTaps>;
  using Sums = Accumulators<Layout>;

 public:
  __device__ Finisher(const Params &params, const Tile<kN, kTaps> &tile, typename Layout::Shared &shared)
      : params_(params),
        tile_(tile),
        shared_(shared),
        warp_n_(threadIdx.x / 32 % Layout::kWarpsN),
        row_(threadIdx.x / 32 / Layout::kWarpsN * kWarpRows),
        column_(threadIdx.x % 32 / 4),
        channel_(warp_n_ * Layout::kWarpN + threadIdx.x % 4 * 4) {}

  __device__ void operator()(Sums &d) const {
    const Conv &conv = params_.conv;
    add_bias(d);
    if constexpr (kN == kColourChannels) {
      store_colours(d);
    } else if constexpr (kTaps == 1) {
      store(d, conv.out);  // the doubling of frames is followed by nothing
    } else {
      if (conv.residual) add_residual(d);
      if (conv.out) store(d, conv.out);
      if (conv.activated) {
        activate(d);
        store(d, conv.activated);
      }
    }
  }

 private:
  static constexpr int64_t kOutside = -1;

  /// The number of pixel column_ + 8 h of row m among all of the output.
  __device__ int64_t pixel(int m, int h) const {
    const Conv &conv = params_.conv;
    const int y = tile_.y + row_ + m, x = tile_.x + column_ + 8 * h;
    if (x >= conv.width || y >= conv.height) return kOutside;
    if (conv.kind == ConvKind::kUpsample2x)
      return (int64_t{2} * (tile_.frame * conv.height + y) + tile_.group / 2) * 2 * conv.width + 2 * x +
             tile_.group % 2;
    const int frame = conv.kind == ConvKind::kDoubleFrames ? 2 * tile_.frame + tile_.group : tile_.frame;
    return (int64_t{frame} * conv.height + y) * conv.width + x;
  }

  /// Calls function(sums, sums, place): of each pixel 4 neighbouring channels at a time, two and two, and
  /// where they lie in the output, or kOutside.
  template <typename Function>
  __device__ void for_each_place(Sums &d, Function function) const {
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t number = pixel(m, h);
#pragma unroll
        for (int g = 0; g < Layout::kWarpN / 16; ++g)
          function(&d[m][8 * g + 2 * h], &d[m][8 * g + 4 + 2 * h],
                   number == kOutside ? kOutside
                                      : number * params_.channels + tile_.column * kN + channel_ + 16 * g);
      }
  }

  __device__ void add_bias(Sums &d) const {
    const int group = params_.conv.kind == ConvKind::kDoubleFrames ? tile_.group * params_.channels : 0;
#pragma unroll
    for (int g = 0; g < Layout::kWarpN / 16; ++g) {
      const float4 bias = *reinterpret_cast<const float4 *>(params_.conv.bias + group + tile_.column * kN +
                                                            channel_ + 16 * g);
#pragma unroll
      for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          d[m][8 * g + 2 * h] += bias.x;
          d[m][8 * g + 2 * h + 1] += bias.y;
          d[m][8 * g + 4 + 2 * h] += bias.z;
          d[m][8 * g + 4 + 2 * h + 1] += bias.w;
        }
    }
  }

  __device__ void add_residual(Sums &d) const {
    for_each_place(d, [&](float *low, float *high, int64_t place) {
      if (place == kOutside) return;
      const uint2 words = *reinterpret_cast<const uint2 *>(params_.conv.residual + place);
      const float2 first = unpack(words.x), second = unpack(words.y);
      low[0] += first.x;
      low[1] += first.y;
      high[0] += second.x;
      high[1] += second.y;
    });
  }

  __device__ void store(Sums &d, __nv_bfloat16 *to) const {
    for_each_place(d, [&](const float *low, const float *high, int64_t place) {
      if (place == kOutside) return;
      // Streaming: it is read only when the caches have long been overwritten.
      __stcs(reinterpret_cast<uint2 *>(to + place), make_uint2(pack(low[0], low[1]), pack(high[0], high[1])));
    });
  }

  /// SiLU(RMS_norm(d) * gamma), where the tile has all channels.
  __device__ void activate(Sums &d) const {
    const int first = row_ * kTileWidth + column_;
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = 0;
#pragma unroll
        for (int i = 2 * h; i < Layout::kWarpN / 2; i += 4)
          sum += d[m][i] * d[m][i] + d[m][i + 1] * d[m][i + 1];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (threadIdx.x % 4 == 0) shared_.sums[warp_n_][first + m * kTileWidth + 8 * h] = sum;
      }
    __syncthreads();
    float factors[kWarpRows][2];
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float sum = 0;
#pragma unroll
        for (int warp = 0; warp < Layout::kWarpsN; ++warp)
          sum += shared_.sums[warp][first + m * kTileWidth + 8 * h];
        factors[m][h] = 0.5f * norm_factor(sum, kN);
      }
#pragma unroll
    for (int g = 0; g < Layout::kWarpN / 16; ++g) {
      const float4 gamma = *reinterpret_cast<const float4 *>(params_.conv.gamma + channel_ + 16 * g);
#pragma unroll
      for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float *const low = &d[m][8 * g + 2 * h], *const high = &d[m][8 * g + 4 + 2 * h];
          low[0] = silu_of_twice(low[0] * factors[m][h] * gamma.x);
          low[1] = silu_of_twice(low[1] * factors[m][h] * gamma.y);
          high[0] = silu_of_twice(high[0] * factors[m][h] * gamma.z);
          high[1] = silu_of_twice(high[1] * factors[m][h] * gamma.w);
        }
    }
  }

  /// The colours, which are the first three channels.
  __device__ void store_colours(const Sums &d) const {
    if (threadIdx.x % 4 > 0) return;
#pragma unroll
    for (int m = 0; m < kWarpRows; ++m)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int64_t number = pixel(m, h);
        if (number == kOutside) continue;
        float *const plane = params_.conv.planes + number;
        plane[0] = d[m][2 * h];
        plane[params_.conv.plane_stride] = d[m][2 * h + 1];
        plane[2 * params_.conv.plane_stride] = d[m][4 + 2 * h];
      }
  }

  const Params &params_;
  const Tile<kN, kTaps> tile_;
  typename Layout::Shared &shared_;
  const int warp_n_, row_, column_, channel_;  // of the tile: the warp's, and then the lane's first
};

template <int kN, int kTaps>
__device__ inline void convolve(const Params &params, typename Layout<kN, kTaps>::Shared &shared) {
  using Layout = sm80::Layout<kN, kTaps>;
  Copier<kN, kTaps> copier(params, shared);
  for (int step = 0; step < Layout::kStages - 1; ++step) copier.copy_step();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_pixel = warp / Layout::kWarpsN * kWarpRows * Layout::kWidth + lane % 16;
  const uint32_t pixels = shared_address(shared.pixels);
  const uint32_t weights =
      shared_address(shared.weights) + warp % Layout::kWarpsN * (Layout::kWarpN * kRowBytes);
  // Warps w and w + 4 share a scheduler: one copies while the other multiplies.
  const int copying_half = warp / 4 % 2;
  int pixel_stage = 0, weight_stage = 0;
  for (int number = blockIdx.x; number < params.num_tiles; number += gridDim.x) {
    const int blocks = (params.taps_time - Tile<kN, kTaps>(params, number).first_tap(params)) *
                       (params.conv.in_channels / kChannelBlock);
    Accumulators<Layout> d = {};
    for (int block = 0; block < blocks; ++block) {
#pragma unroll 1
      for (int column = 0; column < kTaps; ++column) {
        wait_for_copies<Layout::kStages - 2>();
        // Everybody's copies are there, and nobody reads any more what is copied over next.
        __syncthreads();
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
          if (half == copying_half) copier.copy_step();
          multiply<Layout, kTaps>(d, pixels + pixel_stage * Layout::kPixelBytes, first_pixel + column,
                                  weights + weight_stage * Layout::kWeightBytes, half * (kPieces / 2));
        }
        weight_stage = next_stage<Layout::kStages>(weight_stage);
      }
      pixel_stage = next_stage<Layout::kPixelStages>(pixel_stage);
    }
    asm volatile("" : "+r"(number));  // so that its place is computed again, and takes no registers until now
    Finisher<kN, kTaps>(params, Tile<kN, kTaps>(params, number), shared)(d);
  }
}

template <int kN, int kTaps>
Params count_tiles(const Conv &conv) {
  Params params = {ConvGeometry(conv), conv, 0, 0, 0, 0};
  params.columns = (params.channels + kN - 1) / kN;
  params.tiles_x = (conv.width + kTileWidth - 1) / kTileWidth;
  params.tiles_y = (conv.height + Layout<kN, kTaps>::kTileHeight - 1) / Layout<kN, kTaps>::kTileHeight;
  params.num_tiles = params.tiles_x * params.tiles_y * conv.num_outputs * params.groups * params.columns;
  return params;
}

/// Calls function.operator()<channels of a tile, taps>(params) and returns what it does. RMS norm wants all
/// channels in one tile. Otherwise tiles of 128 and 96 are the most efficient, since they have most pixels.
template <int kTaps, typename Function>
auto with_tiles_of(const Conv &conv, Function function) {
  if constexpr (kTaps == 3)
    if (conv.planes)
      return function.template operator()<kColourChannels, 3>(count_tiles<kColourChannels, 3>(conv));
  const int channels = ConvGeometry(conv).channels;
  if constexpr (kTaps > 1)
    if (conv.activated && channels == 192)
      return function.template operator()<192, kTaps>(count_tiles<192, kTaps>(conv));
  if (channels % 128 == 0) return function.template operator()<128, kTaps>(count_tiles<128, kTaps>(conv));
  return function.template operator()<96, kTaps>(count_tiles<96, kTaps>(conv));
}

template <typename Function>
auto with_tiles(const Conv &conv, Function function) {
  switch (conv.kind) {
    case ConvKind::kUpsample2x:
      return with_tiles_of<2>(conv, function);
    case ConvKind::kDoubleFrames:
      return with_tiles_of<1>(conv, function);
    default:
      return with_tiles_of<3>(conv, function);
  }
}

}  // namespace wan::sm80
