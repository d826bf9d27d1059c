// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "wan/engine.h"

namespace wan {

/// frames: [3, count, H, W] float32 on the GPU; pixels: [count, layout.size]. Width and height are even.
cudaError_t launch_frames_to_pixels(const float *frames, int64_t count, const WanPixelLayout &layout,
                                    uint8_t *pixels, cudaStream_t stream);

}  // namespace wan
