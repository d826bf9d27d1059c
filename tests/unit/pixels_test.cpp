// SPDX-License-Identifier: LGPL-2.1-or-later
//
// frames_to_pixels against the same arithmetic in ATen, in every format, on sizes that are not powers of two,
// with padded rows. On the CPU, and on CUDA where WAN_TEST_DEVICE says so.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "common/engine.h"
#include "common/tiny_model.h"
#include "ops/frames_to_pixels.h"

namespace wan::test {
namespace {

constexpr int kPadding = 12;  // bytes after each row

WanPixelLayout padded(WanPixelFormat format, int32_t width, int32_t height) {
  WanPixelLayout layout = packed_layout(format, width, height);
  const int32_t chroma_rows = layout.offset[1] ? height / 2 : 0;
  for (int32_t &stride : layout.stride) stride += stride ? kPadding : 0;
  if (layout.offset[1]) {
    layout.offset[1] = static_cast<size_t>(layout.stride[0]) * static_cast<size_t>(height);
    layout.offset[2] = layout.offset[1] + static_cast<size_t>(layout.stride[1] * chroma_rows);
  }
  const bool two_chroma_planes = format == WAN_PIXEL_I420;
  layout.size = static_cast<size_t>(layout.stride[0]) * static_cast<size_t>(height) +
                static_cast<size_t>(layout.stride[1] * chroma_rows * (two_chroma_planes ? 2 : 1));
  return layout;
}

/// One plane of a frame, [rows, columns], out of the bytes.
at::Tensor plane(const at::Tensor &bytes, const WanPixelLayout &layout, int index, int64_t rows,
                 int64_t columns, int64_t step = 1, int64_t first = 0) {
  const int64_t offset = static_cast<int64_t>(layout.offset[index]) + first;
  return bytes.as_strided({rows, columns}, {layout.stride[index], step}, bytes.storage_offset() + offset);
}

/// A plane of Y, Cb or Cr in float, before rounding.
at::Tensor yuv_plane(const at::Tensor &rgb, const WanPixelLayout &layout, int which) {
  const double red = layout.matrix == WAN_MATRIX_BT601 ? 0.299 : 0.2126;
  const double blue = layout.matrix == WAN_MATRIX_BT601 ? 0.114 : 0.0722;
  const at::Tensor luma = rgb[0] * red + rgb[1] * (1 - red - blue) + rgb[2] * blue;
  if (which == 0) return luma * (layout.full_range ? 255 : 219) + (layout.full_range ? 0 : 16);
  const at::Tensor difference =
      which == 1 ? (rgb[2] - luma) / (2 * (1 - blue)) : (rgb[0] - luma) / (2 * (1 - red));
  return at::avg_pool2d(difference.unsqueeze(0), 2)[0] * (layout.full_range ? 255 : 224) + 128;
}

/// Rounding of a float computed in another order may differ by one.
void expect_close(const at::Tensor &out, const at::Tensor &reference, const char *what) {
  const at::Tensor difference = (out.to(at::kDouble) - reference.to(at::kDouble)).abs();
  EXPECT_LE(difference.max().item<double>(), 0.5 + 1e-3) << what;
}

void check_frame(const at::Tensor &bytes, const at::Tensor &rgb, const WanPixelLayout &layout) {
  const int64_t width = layout.width, height = layout.height;
  const bool nv12 = layout.format == WAN_PIXEL_NV12;
  if (nv12 || layout.format == WAN_PIXEL_I420) {
    expect_close(plane(bytes, layout, 0, height, width), yuv_plane(rgb, layout, 0), "Y");
    const at::Tensor u = plane(bytes, layout, 1, height / 2, width / 2, nv12 ? 2 : 1);
    const at::Tensor v = nv12 ? plane(bytes, layout, 1, height / 2, width / 2, 2, 1)
                              : plane(bytes, layout, 2, height / 2, width / 2);
    expect_close(u, yuv_plane(rgb, layout, 1), "U");
    expect_close(v, yuv_plane(rgb, layout, 2), "V");
    return;
  }
  const int64_t step = layout.format == WAN_PIXEL_RGB ? 3 : 4;
  for (int64_t channel = 0; channel < 3; ++channel) {
    const int64_t first = layout.format == WAN_PIXEL_BGRX ? 2 - channel : channel;
    expect_close(plane(bytes, layout, 0, height, width, step, first), rgb[channel] * 255, "RGB");
  }
  if (step == 4) {
    EXPECT_TRUE(plane(bytes, layout, 0, height, width, 4, 3).eq(255).all().item<bool>());
  }
}

using Case = std::tuple<WanPixelFormat, WanColorMatrix, bool, std::pair<int, int>>;
class FramesToPixels : public testing::TestWithParam<Case> {};

TEST_P(FramesToPixels, EqualsAten) {
  const auto &[format, matrix, full_range, size] = GetParam();
  WanPixelLayout layout = padded(format, size.first, size.second);
  layout.matrix = matrix;
  layout.full_range = full_range;
  // Beyond [-1, 1] too: the conversion clamps.
  const at::Tensor frames = at::rand({1, 3, 3, layout.height, layout.width}) * 2.4 - 1.2;
  const at::Tensor pixels = frames_to_pixels(frames.to(test_device()), layout).to(at::kCPU);
  ASSERT_EQ(pixels.sizes(), (std::vector<int64_t>{3, static_cast<int64_t>(layout.size)}));
  const at::Tensor rgb = (frames[0] * 0.5 + 0.5).clamp(0, 1);
  for (int64_t t = 0; t < 3; ++t) check_frame(pixels[t], rgb.select(1, t), layout);
}

INSTANTIATE_TEST_SUITE_P(
    Formats, FramesToPixels,
    testing::Combine(testing::Values(WAN_PIXEL_NV12, WAN_PIXEL_I420, WAN_PIXEL_RGB, WAN_PIXEL_RGBX,
                                     WAN_PIXEL_BGRX),
                     testing::Values(WAN_MATRIX_BT601, WAN_MATRIX_BT709), testing::Bool(),
                     testing::Values(std::pair{2, 2}, std::pair{34, 6}, std::pair{162, 98})));

/// True where a byte of the frames is padding, at the end of a row.
at::Tensor padding_of(const at::Tensor &pixels, const WanPixelLayout &layout) {
  const int planes = layout.format == WAN_PIXEL_I420 ? 3 : layout.format == WAN_PIXEL_NV12 ? 2 : 1;
  const at::Tensor padding = at::zeros_like(pixels);
  for (int index = 0; index < planes; ++index) {
    const int64_t rows = index == 0 ? layout.height : layout.height / 2;
    for (int64_t t = 0; t < padding.size(0); ++t)
      plane(padding[t], layout, index, rows, kPadding, 1, layout.stride[index] - kPadding).fill_(1);
  }
  return padding.to(at::kBool);
}

TEST(FramesToPixels, WritesEveryPixelAndNoPadding) {
  for (const auto format : {WAN_PIXEL_NV12, WAN_PIXEL_I420, WAN_PIXEL_RGB, WAN_PIXEL_RGBX, WAN_PIXEL_BGRX}) {
    const WanPixelLayout layout = padded(format, 34, 6);
    const at::Tensor frames = (at::rand({1, 3, 2, layout.height, layout.width}) * 2 - 1).to(test_device());
    const at::Tensor zero_padded = frames_to_pixels(frames, layout);
    const at::Tensor poison = at::full_like(zero_padded, 171), out = poison.clone();
    frames_to_pixels_out(out, frames, layout);
    EXPECT_TRUE(at::equal(out, at::where(padding_of(out, layout), poison, zero_padded))) << format;
    EXPECT_EQ(zero_padded.masked_select(padding_of(out, layout)).sum().item<int64_t>(), 0) << format;
  }
}

TEST(FramesToPixels, ExtremesAreExact) {
  WanPixelLayout layout = packed_layout(WAN_PIXEL_NV12, 2, 2);
  const at::Tensor white = at::ones({1, 3, 1, 2, 2}).to(test_device());
  at::Tensor pixels = frames_to_pixels(white, layout).to(at::kCPU);
  EXPECT_TRUE(at::equal(pixels[0], at::tensor({235, 235, 235, 235, 128, 128}, at::kByte)));
  pixels = frames_to_pixels(-white, layout).to(at::kCPU);
  EXPECT_TRUE(at::equal(pixels[0], at::tensor({16, 16, 16, 16, 128, 128}, at::kByte)));
}

}  // namespace
}  // namespace wan::test
