// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Convolutions of the Wan VAE on Hopper's tensor cores (sm_90a).
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/sm90_limits.h"

namespace wan::sm90 {

constexpr int kMaxFrames = 6;  // four outputs and their history

/// One convolution of frames in channels-last bfloat16, each [height, width, in_channels].
struct Conv {
  ConvKind kind;
  int height, width, in_channels, out_channels;
  /// The frames that the outputs see, oldest first, without those before the stream's start, which are zero:
  /// at most num_outputs + 2, for kUpsample2x num_outputs.
  const void *frames[kMaxFrames];
  int num_frames, num_outputs;
  const __nv_bfloat16 *weight;  // packed, see pack() in ops/conv_sm90.h
  const float *bias;            // [out_channels]
  /// [num_outputs, height, width, out_channels] with the kind's height, width and frames; each may be null.
  const __nv_bfloat16 *residual;  // is added; may be `out` itself
  const float *gamma;             // [out_channels], of the RMS norm for `activated`
  __nv_bfloat16 *out;
  __nv_bfloat16 *activated;  // SiLU(RMS_norm(out) * gamma): only where one block has all channels
  /// In place of these, for 3 channels: [3, num_outputs, height, width]; the colours lie `plane_stride`
  /// apart.
  float *planes;
  int64_t plane_stride;
};

cudaError_t launch_conv(const Conv &conv, cudaStream_t stream);

}  // namespace wan::sm90
