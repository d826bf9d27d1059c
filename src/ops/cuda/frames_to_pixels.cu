// SPDX-License-Identifier: LGPL-2.1-or-later
//
// CUDA kernel of frames_to_pixels: one thread for 2x2 pixels, so that NV12 and I420 read every value once.
#include "ops/cuda/frames_to_pixels.h"

#include "ops/pixel_math.h"

namespace wan {

namespace {

struct Rgb {
  float r, g, b;
};

__device__ void write_packed(uint8_t *out, const Rgb &rgb, int step, bool blue_first) {
  const uint8_t r = to_byte(rgb.r * 255.0f), b = to_byte(rgb.b * 255.0f);
  const uint8_t g = to_byte(rgb.g * 255.0f);
  if (step == 4) {
    *reinterpret_cast<uchar4 *>(out) = blue_first ? make_uchar4(b, g, r, 255) : make_uchar4(r, g, b, 255);
  } else {
    out[0] = r;
    out[1] = g;
    out[2] = b;
  }
}

__global__ void frames_to_pixels_kernel(const float *frames, int64_t channel_stride, WanPixelLayout layout,
                                        YuvCoefficients yuv, uint8_t *pixels) {
  const int x = 2 * (blockIdx.x * blockDim.x + threadIdx.x), y = 2 * (blockIdx.y * blockDim.y + threadIdx.y);
  if (x >= layout.width || y >= layout.height) return;
  const int64_t frame_area = static_cast<int64_t>(layout.width) * layout.height;
  const float *frame = frames + blockIdx.z * frame_area;
  uint8_t *out = pixels + blockIdx.z * layout.size;
  const bool planar = layout.format == WAN_PIXEL_NV12 || layout.format == WAN_PIXEL_I420;
  const int step = layout.format == WAN_PIXEL_RGB ? 3 : 4;
  Rgb mean = {0, 0, 0};
  for (int i = 0; i < 4; ++i) {
    const int column = x + i % 2, row = y + i / 2;
    const float *value = frame + static_cast<int64_t>(row) * layout.width + column;
    const Rgb rgb = {unit(value[0]), unit(value[channel_stride]), unit(value[2 * channel_stride])};
    uint8_t *line = out + layout.offset[0] + static_cast<int64_t>(row) * layout.stride[0];
    if (planar)
      line[column] = to_byte(weighted(yuv.y, rgb.r, rgb.g, rgb.b) + yuv.y_offset);
    else
      write_packed(line + column * step, rgb, step, layout.format == WAN_PIXEL_BGRX);
    mean.r += rgb.r * 0.25f;
    mean.g += rgb.g * 0.25f;
    mean.b += rgb.b * 0.25f;
  }
  if (!planar) return;
  const bool interleaved = layout.format == WAN_PIXEL_NV12;
  uint8_t *u =
      out + layout.offset[1] + static_cast<int64_t>(y / 2) * layout.stride[1] + (interleaved ? x : x / 2);
  uint8_t *v =
      interleaved ? u + 1 : out + layout.offset[2] + static_cast<int64_t>(y / 2) * layout.stride[2] + x / 2;
  *u = to_byte(weighted(yuv.u, mean.r, mean.g, mean.b) + yuv.chroma_offset);
  *v = to_byte(weighted(yuv.v, mean.r, mean.g, mean.b) + yuv.chroma_offset);
}

}  // namespace

cudaError_t launch_frames_to_pixels(const float *frames, int64_t count, const WanPixelLayout &layout,
                                    uint8_t *pixels, cudaStream_t stream) {
  const dim3 block(32, 8);
  const dim3 grid((layout.width / 2 + block.x - 1) / block.x, (layout.height / 2 + block.y - 1) / block.y,
                  static_cast<unsigned>(count));
  const int64_t channel_stride = count * layout.width * layout.height;
  frames_to_pixels_kernel<<<grid, block, 0, stream>>>(
      frames, channel_stride, layout, make_yuv_coefficients(layout.matrix, layout.full_range), pixels);
  return cudaGetLastError();
}

}  // namespace wan
