// SPDX-License-Identifier: LGPL-2.1-or-later
#include "matmul_peak.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "common.h"
#include "device.h"

namespace wan::bench {

double matmul_tflop_per_s(at::Device device) {
  constexpr int kWarmup = 5, kRuns = 15;
  const int64_t size = device.is_cpu() ? 1024 : 8192;
  const at::ScalarType dtype = device.is_cpu() ? at::kFloat : at::kBFloat16;
  const at::Tensor a = at::randn({size, size}, at::dtype(dtype).device(device));
  const at::Tensor b = at::randn_like(a);
  std::vector<double> seconds;
  for (int i = 0; i < kWarmup + kRuns; ++i) {
    synchronize(device);
    const Clock::time_point start = Clock::now();
    at::mm(a, b);
    synchronize(device);
    if (i >= kWarmup) seconds.push_back(seconds_since(start));
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  const auto edge = static_cast<double>(size);
  return 2 * edge * edge * edge / seconds[kRuns / 2] / 1e12;
}

}  // namespace wan::bench
