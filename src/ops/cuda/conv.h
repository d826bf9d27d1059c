// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Convolutions of the Wan VAE on tensor cores: a kernel for Hopper's (sm_90a), and one for all from sm_80 on.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/conv_limits.h"

namespace wan {

constexpr int kMaxFrames = 6;  // four outputs and their history

/// One convolution of frames in channels-last bfloat16, each [height, width, in_channels].
struct Conv {
  ConvKind kind;
  int height, width, in_channels, out_channels;
  /// The frames that the outputs see, oldest first, without those before the stream's start, which are zero:
  /// at most num_outputs + 2, for kUpsample2x num_outputs.
  const void *frames[kMaxFrames];
  int num_frames, num_outputs;
  const __nv_bfloat16 *weight;  // packed, see pack() in ops/packed_conv.h
  const float *bias;            // [out_channels]
  /// [num_outputs, height, width, out_channels] with the kind's height, width and frames; each may be null.
  /// What doubles frames has `out` alone.
  const __nv_bfloat16 *residual;  // is added; may be `out` itself
  const float *gamma;             // [out_channels], of the RMS norm for `activated`
  __nv_bfloat16 *out;
  __nv_bfloat16 *activated;  // SiLU(RMS_norm(out) * gamma): only where one block has all channels
  /// In place of these, for 3 channels: [3, num_outputs, height, width]; the colours lie `plane_stride`
  /// apart.
  float *planes;
  int64_t plane_stride;
};

/// What a kernel is told of a convolution besides.
struct ConvGeometry {
  int taps_time, missing_frames;
  int groups;    // phases, or even and odd frames; 1 where there are none
  int channels;  // of the output

  explicit ConvGeometry(const Conv &conv)
      : taps_time(conv.kind == ConvKind::kUpsample2x ? 1 : 3),
        missing_frames(conv.num_outputs + taps_time - 1 - conv.num_frames),
        groups(conv.kind == ConvKind::kUpsample2x     ? 4
               : conv.kind == ConvKind::kDoubleFrames ? 2
                                                      : 1),
        channels(conv.kind == ConvKind::kDoubleFrames ? conv.out_channels / 2 : conv.out_channels) {}
};

/// Of the current GPU.
inline int multiprocessors() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return count;
}

namespace sm80 {
cudaError_t launch_conv(const Conv &conv, cudaStream_t stream);
}
namespace sm90 {
cudaError_t launch_conv(const Conv &conv, cudaStream_t stream);
}

}  // namespace wan
