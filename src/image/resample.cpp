// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/resample.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace wan {

namespace {

/// Weights are whole numbers, in units of 2^-22: so many bits are left of 32 for the sums.
constexpr int kWeightBits = 22;

struct Kernel {
  double (*value)(double distance);
  double support;  // beyond this distance it is zero
};

double sinc(double x) {
  return x == 0 ? 1 : std::sin(x * M_PI) / (x * M_PI);
}

double lanczos(double x) {
  return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

double bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1) return ((kA + 2) * x - (kA + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * kA : 0;
}

Kernel kernel_of(Resampling filter) {
  return filter == Resampling::kBicubic ? Kernel{bicubic, 2} : Kernel{lanczos, 3};
}

/// The inputs that one output is the weighted sum of.
struct Sum {
  int64_t first;
  std::vector<int32_t> weights;
};

int32_t to_whole(double weight) {
  const double scaled = weight * (1 << kWeightBits);
  return static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

/// Of output `index`. scale: inputs to an output.
Sum make_sum(const Kernel &kernel, int64_t inputs, double scale, int64_t index) {
  const double stretch = std::max(scale, 1.0), support = kernel.support * stretch;
  const double center = (static_cast<double>(index) + 0.5) * scale;
  const auto first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
  const auto end = std::min(inputs, static_cast<int64_t>(center + support + 0.5));
  std::vector<double> values;
  double total = 0;
  for (int64_t i = first; i < end; ++i) {
    values.push_back(kernel.value((static_cast<double>(i) - center + 0.5) * (1 / stretch)));
    total += values.back();
  }
  Sum sum = {first, {}};
  for (const double value : values) sum.weights.push_back(to_whole(total == 0 ? value : value / total));
  return sum;
}

/// One row of the output. sums: room for `values` numbers.
void add_rows(const Sum &sum, const uint8_t *rows, int64_t values, int32_t *sums, uint8_t *out) {
  std::fill_n(sums, values, 1 << (kWeightBits - 1));
  const uint8_t *row = rows + sum.first * values;
  for (const int32_t weight : sum.weights) {
    for (int64_t i = 0; i < values; ++i) sums[i] += weight * row[i];
    row += values;
  }
  for (int64_t i = 0; i < values; ++i)
    out[i] = static_cast<uint8_t>(std::clamp(sums[i] >> kWeightBits, 0, 255));
}

/// x: [n, ., C] uint8. Returns [size, ., C].
at::Tensor resize_rows(const at::Tensor &x, int64_t size, const Kernel &kernel) {
  if (x.size(0) == size) return x;
  const at::Tensor in = x.contiguous();
  at::Tensor out = at::empty({size, x.size(1), x.size(2)}, in.options());
  const int64_t values = x.size(1) * x.size(2);
  const double scale = static_cast<double>(x.size(0)) / static_cast<double>(size);
  const uint8_t *const from = in.const_data_ptr<uint8_t>();
  uint8_t *const to = out.mutable_data_ptr<uint8_t>();
  at::parallel_for(0, size, 1, [&](int64_t begin, int64_t end) {
    std::vector<int32_t> sums(static_cast<size_t>(values));
    for (int64_t i = begin; i < end; ++i)
      add_rows(make_sum(kernel, x.size(0), scale, i), from, values, sums.data(), to + i * values);
  });
  return out;
}

at::Tensor resize_columns(const at::Tensor &x, int64_t size, const Kernel &kernel) {
  return resize_rows(x.transpose(0, 1), size, kernel).transpose(0, 1);
}

}  // namespace

at::Tensor resize(const at::Tensor &picture, int64_t height, int64_t width, Resampling filter) {
  const Kernel kernel = kernel_of(filter);
  // What is between the two passes is rounded, so their order is seen.
  const int64_t fewer_rows = picture.size(0) - height, fewer_columns = picture.size(1) - width;
  const bool rows_first = fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
  const at::Tensor resized = rows_first ? resize_columns(resize_rows(picture, height, kernel), width, kernel)
                                        : resize_rows(resize_columns(picture, width, kernel), height, kernel);
  return resized.contiguous();
}

}  // namespace wan
