// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/cpu/winograd.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace wan {

namespace {

/// Neighbouring channels.
using Floats = float __attribute__((vector_size(16)));
constexpr int64_t kLanes = 4;
/// 4x4 pixels that overlap by two, or their 16 frequencies.
using Patch = std::array<std::array<Floats, 4>, 4>;
constexpr int64_t kFrequencies = 16;

Floats load(const float *from) {
  Floats value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void store(float *to, Floats value) {
  std::memcpy(to, &value, sizeof(value));
}

void to_frequencies(Floats &a, Floats &b, Floats &c, Floats &d) {
  const Floats second = b;
  a = a - c;
  b = b + c;
  c = c - second;
  d = second - d;
}

/// Leaves two outputs in the first two places.
void from_frequencies(Floats &a, Floats &b, Floats &c, Floats &d) {
  a = a + b + c;
  b = b - c - d;
}

template <typename Transform>
void transform_columns_and_rows(Patch &patch, Transform transform) {
  for (size_t i = 0; i < 4; ++i) transform(patch[0][i], patch[1][i], patch[2][i], patch[3][i]);
  for (auto &row : patch) transform(row[0], row[1], row[2], row[3]);
}

/// A band of a picture, as patches from left to right and from top to bottom.
struct Band {
  int64_t height, width;             // of the picture
  int64_t first_row, rows, columns;  // in patches

  int64_t patches() const { return rows * columns; }
  int64_t y(int64_t patch) const { return 2 * (first_row + patch / columns); }
  int64_t x(int64_t patch) const { return 2 * (patch % columns); }
};

/// frame: [H, W, C]; out: its place in [16, patches, K].
void input_to_frequencies(const float *frame, int64_t channels, const Band &band, int64_t patch, float *out,
                          int64_t frequency_stride) {
  std::array<const float *, kFrequencies> pixels;
  for (int64_t i = 0; i < kFrequencies; ++i) {
    const int64_t y = band.y(patch) - 1 + i / 4, x = band.x(patch) - 1 + i % 4;
    const bool inside = y >= 0 && y < band.height && x >= 0 && x < band.width;
    pixels[static_cast<size_t>(i)] = inside ? frame + (y * band.width + x) * channels : nullptr;
  }
  for (int64_t c = 0; c < channels; c += kLanes) {
    Patch values;
    for (size_t i = 0; i < kFrequencies; ++i)
      values[i / 4][i % 4] = pixels[i] ? load(pixels[i] + c) : Floats{};
    transform_columns_and_rows(values, to_frequencies);
    for (int64_t i = 0; i < kFrequencies; ++i)
      store(out + i * frequency_stride + c, values[static_cast<size_t>(i / 4)][static_cast<size_t>(i % 4)]);
  }
}

/// in: the patch's place in [16, patches, C]; frame: [H, W, C].
void output_from_frequencies(const float *in, int64_t frequency_stride, const float *bias, int64_t channels,
                             const Band &band, int64_t patch, float *frame) {
  const int64_t height = std::min<int64_t>(2, band.height - band.y(patch));
  const int64_t width = std::min<int64_t>(2, band.width - band.x(patch));
  for (int64_t c = 0; c < channels; c += kLanes) {
    Patch values;
    for (int64_t i = 0; i < kFrequencies; ++i)
      values[static_cast<size_t>(i / 4)][static_cast<size_t>(i % 4)] = load(in + i * frequency_stride + c);
    transform_columns_and_rows(values, from_frequencies);
    for (int64_t y = 0; y < height; ++y)
      for (int64_t x = 0; x < width; ++x)
        store(frame + ((band.y(patch) + y) * band.width + band.x(patch) + x) * channels + c,
              values[static_cast<size_t>(y)][static_cast<size_t>(x)] + load(bias + c));
  }
}

void conv2d_band(at::TensorList frames, const at::Tensor &weight, const at::Tensor &bias, const Band &band,
                 const at::Tensor &out) {
  const int64_t in = frames[0].size(-1), all_in = weight.size(1), channels = weight.size(2);
  const at::Tensor inputs = at::empty({kFrequencies, band.patches(), all_in}, out.options());
  float *const to = inputs.mutable_data_ptr<float>();
  at::parallel_for(0, band.patches(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t patch = begin; patch < end; ++patch)
      for (size_t frame = 0; frame < frames.size(); ++frame)
        input_to_frequencies(frames[frame].const_data_ptr<float>(), in, band, patch,
                             to + patch * all_in + static_cast<int64_t>(frame) * in, inputs.stride(0));
  });
  const at::Tensor outputs = at::bmm(inputs, weight);
  const float *const from = outputs.const_data_ptr<float>();
  at::parallel_for(0, band.patches(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t patch = begin; patch < end; ++patch)
      output_from_frequencies(from + patch * channels, outputs.stride(0), bias.const_data_ptr<float>(),
                              channels, band, patch, out.mutable_data_ptr<float>());
  });
}

}  // namespace

bool winograd_pays(int64_t in, int64_t out) {
  return std::min(in, out) >= 64 && in % kLanes == 0 && out % kLanes == 0;
}

at::Tensor winograd_weight(const at::Tensor &weight) {
  const at::Tensor transform =
      at::tensor({1.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5, 0.0, 0.0, 1.0}, at::kDouble).view({4, 3});
  const at::Tensor frequencies =
      at::matmul(at::matmul(transform, weight.to(at::kDouble)), transform.t());  // [Cout, K, 4, 4]
  return frequencies.permute({2, 3, 1, 0}).flatten(0, 1).to(at::kFloat).contiguous();
}

void winograd_conv2d(at::TensorList frames, const at::Tensor &weight, const at::Tensor &bias,
                     const at::Tensor &out) {
  constexpr int64_t kBandValues = 4 << 20;  // of the input's frequencies: so that they stay in the cache
  Band band = {out.size(0), out.size(1), 0, 0, (out.size(1) + 1) / 2};
  const int64_t all_rows = (band.height + 1) / 2;
  const int64_t rows = std::max<int64_t>(1, kBandValues / (kFrequencies * weight.size(1) * band.columns));
  for (; band.first_row < all_rows; band.first_row += rows) {
    band.rows = std::min(rows, all_rows - band.first_row);
    conv2d_band(frames, weight, bias, band, out);
  }
}

}  // namespace wan
