// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/frames_to_pixels.h"

#include <ATen/ATen.h>

#include "ops/kernels.h"
#include "ops/pixel_layout.h"
#include "ops/pixel_math.h"

namespace wan {

namespace {

/// The three colour planes of one frame.
struct Planes {
  const float *r, *g, *b;
};

/// One row of packed pixels of `step` bytes; order says where R, G and B lie in them.
void packed_row(const Planes &in, int64_t width, int step, const int (&order)[3], uint8_t *out) {
  for (int64_t x = 0; x < width; ++x, out += step) {
    out[order[0]] = to_byte(unit(in.r[x]) * 255.0f);
    out[order[1]] = to_byte(unit(in.g[x]) * 255.0f);
    out[order[2]] = to_byte(unit(in.b[x]) * 255.0f);
    if (step == 4) out[3] = 255;
  }
}

void luma_row(const Planes &in, int64_t width, const YuvCoefficients &yuv, uint8_t *out) {
  for (int64_t x = 0; x < width; ++x)
    out[x] = to_byte(weighted(yuv.y, unit(in.r[x]), unit(in.g[x]), unit(in.b[x])) + yuv.y_offset);
}

/// Mean of the 2x2 pixels at column 2 x of two rows that lie `width` apart.
float mean_of_four(const float *plane, int64_t x, int64_t width) {
  const float *top = plane + 2 * x, *bottom = top + width;
  return (unit(top[0]) + unit(top[1]) + unit(bottom[0]) + unit(bottom[1])) * 0.25f;
}

/// One row of chroma from two rows of pixels; `step` is 2 where U and V are interleaved.
void chroma_row(const Planes &in, int64_t width, const YuvCoefficients &yuv, int step, uint8_t *u,
                uint8_t *v) {
  for (int64_t x = 0; x < width / 2; ++x) {
    const float r = mean_of_four(in.r, x, width), g = mean_of_four(in.g, x, width),
                b = mean_of_four(in.b, x, width);
    u[x * step] = to_byte(weighted(yuv.u, r, g, b) + yuv.chroma_offset);
    v[x * step] = to_byte(weighted(yuv.v, r, g, b) + yuv.chroma_offset);
  }
}

void convert_frame(const Planes &frame, const WanPixelLayout &layout, uint8_t *out) {
  const int64_t width = layout.width, height = layout.height;
  const auto row_of = [&](int64_t y) {
    return Planes{frame.r + y * width, frame.g + y * width, frame.b + y * width};
  };
  const auto plane_row = [&](int plane, int64_t y) {
    return out + layout.offset[plane] + y * layout.stride[plane];
  };
  if (layout.format != WAN_PIXEL_NV12 && layout.format != WAN_PIXEL_I420) {
    const bool blue_first = layout.format == WAN_PIXEL_BGRX;
    const int order[3] = {blue_first ? 2 : 0, 1, blue_first ? 0 : 2};
    const int step = layout.format == WAN_PIXEL_RGB ? 3 : 4;
    for (int64_t y = 0; y < height; ++y) packed_row(row_of(y), width, step, order, plane_row(0, y));
    return;
  }
  const YuvCoefficients yuv = make_yuv_coefficients(layout.matrix, layout.full_range);
  for (int64_t y = 0; y < height; ++y) luma_row(row_of(y), width, yuv, plane_row(0, y));
  const bool interleaved = layout.format == WAN_PIXEL_NV12;
  for (int64_t y = 0; y < height / 2; ++y) {
    uint8_t *u = plane_row(1, y), *v = interleaved ? u + 1 : plane_row(2, y);
    chroma_row(row_of(2 * y), width, yuv, interleaved ? 2 : 1, u, v);
  }
}

void frames_to_pixels_cpu(const at::Tensor &frames, at::IntArrayRef packed_layout, const at::Tensor &out) {
  const WanPixelLayout layout = unpack_layout(packed_layout);
  check_pixels(out, frames, layout);
  const at::Tensor planes = frames[0].contiguous();  // [3, T, H, W]
  for (int64_t t = 0; t < planes.size(1); ++t) {
    const auto plane = [&](int64_t channel) {
      return planes.const_data_ptr<float>() + channel * planes.stride(0) + t * planes.stride(1);
    };
    convert_frame({plane(0), plane(1), plane(2)}, layout,
                  out.mutable_data_ptr<uint8_t>() + t * out.stride(0));
  }
}

}  // namespace

TORCH_LIBRARY_IMPL(wan, CPU, library) {
  kernels::FramesToPixels::implement(library, frames_to_pixels_cpu);
}

void frames_to_pixels_out(const at::Tensor &out, const at::Tensor &frames, const WanPixelLayout &layout) {
  kernels::FramesToPixels::call(frames, pack_layout(layout), out);
}

at::Tensor frames_to_pixels(const at::Tensor &frames, const WanPixelLayout &layout) {
  const at::Tensor out =
      at::zeros({frames.size(2), static_cast<int64_t>(layout.size)}, frames.options().dtype(at::kByte));
  frames_to_pixels_out(out, frames, layout);
  return out;
}

}  // namespace wan
