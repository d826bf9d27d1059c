// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What ops/packed_conv.cpp and the kernels behind it agree on.
#pragma once

#include <cstdint>

namespace wan {

enum class ConvKind {
  kCausal3x3x3,   // WanCausalConv3d
  kUpsample2x,    // nearest 2x and 3x3, as four 2x2 convolutions, one for each phase of the output
  kDoubleFrames,  // 3x1x1 to twice the channels, which become the even and the odd frames
};

/// Input channels that one step of the kernel takes; weights are packed in such blocks.
constexpr int kChannelBlock = 32;
/// Output channels of one tile.
constexpr int kTileChannels[] = {192, 128, 96};
/// How many output channels weight and bias have where they are for the three colours; the others are zero.
constexpr int kColourChannels = 16;

/// Whether the kernel takes such channels; `out` of a frame. The three colours are possible besides.
constexpr bool takes_channels(int64_t in, int64_t out) {
  bool whole_tiles = false;
  for (const int tile : kTileChannels) whole_tiles = whole_tiles || out % tile == 0;
  return in % kChannelBlock == 0 && whole_tiles;
}

/// Whether the kernel can also give SiLU(RMS_norm(out)): only where one tile has all channels.
constexpr bool fuses_norm(int64_t out) {
  for (const int tile : kTileChannels)
    if (out == tile) return true;
  return false;
}

}  // namespace wan
