// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The arithmetic of frames_to_pixels, for one pixel, shared by its CPU and CUDA kernels.
#pragma once

#include <cmath>
#include <cstdint>

#include "ops/host_device.h"
#include "wan/engine.h"

namespace wan {

/// Y'CbCr from R'G'B' in [0, 1] (ITU-R BT.601 and BT.709), scaled to 8 bits. Made once a frame by make_yuv().
struct YuvCoefficients {
  float y[3], u[3], v[3];  // of R, G, B
  float y_offset, chroma_offset;
};

inline YuvCoefficients make_yuv_coefficients(WanColorMatrix matrix, bool full_range) {
  const float red = matrix == WAN_MATRIX_BT601 ? 0.299f : 0.2126f;
  const float blue = matrix == WAN_MATRIX_BT601 ? 0.114f : 0.0722f;
  const float green = 1.0f - red - blue;
  const float y_scale = full_range ? 255.0f : 219.0f, chroma_scale = full_range ? 255.0f : 224.0f;
  const float u_scale = chroma_scale / (2.0f * (1.0f - blue)), v_scale = chroma_scale / (2.0f * (1.0f - red));
  return {{red * y_scale, green * y_scale, blue * y_scale},
          {-red * u_scale, -green * u_scale, (1.0f - blue) * u_scale},
          {(1.0f - red) * v_scale, -green * v_scale, -blue * v_scale},
          full_range ? 0.0f : 16.0f,
          128.0f};
}

/// From the decoder's [-1, 1] to [0, 1].
WAN_HOST_DEVICE float unit(float x) {
  return fminf(fmaxf(x * 0.5f + 0.5f, 0.0f), 1.0f);
}

/// Rounds half to even, as numpy's round does, and clamps.
WAN_HOST_DEVICE uint8_t to_byte(float x) {
  return static_cast<uint8_t>(fminf(fmaxf(rintf(x), 0.0f), 255.0f));
}

WAN_HOST_DEVICE float weighted(const float (&weight)[3], float r, float g, float b) {
  return weight[0] * r + weight[1] * g + weight[2] * b;
}

}  // namespace wan
