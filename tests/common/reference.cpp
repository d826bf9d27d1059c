// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common/reference.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdlib>

#include "checkpoint/weights.h"

namespace wan::test {

std::string source_path(const std::string &relative) {
  return std::string(WAN_SOURCE_DIR) + "/" + relative;
}

std::string tiny_model() {
  return source_path("models/wan-tiny");
}

std::string test_device_name() {
  const char *name = std::getenv("WAN_TEST_DEVICE");
  return name ? name : "cpu";
}

Reference::Reference(const std::string &relative_path) : file_(source_path(relative_path)) {}

at::Tensor Reference::operator[](const std::string &name) const {
  return stored_tensor(file_, name);
}

double relative_error(const at::Tensor &out, const at::Tensor &reference) {
  TORCH_CHECK(out.sizes() == reference.sizes(), "shapes differ: ", out.sizes(), " and ", reference.sizes());
  const at::Tensor wide = reference.to(at::kCPU, at::kDouble);
  return ((out.to(at::kCPU, at::kDouble) - wide).norm() / wide.norm()).item<double>();
}

double psnr(const at::Tensor &out, const at::Tensor &reference) {
  TORCH_CHECK(out.sizes() == reference.sizes(), "shapes differ: ", out.sizes(), " and ", reference.sizes());
  const double mean_square =
      (out.to(at::kCPU, at::kDouble) - reference.to(at::kCPU, at::kDouble)).pow(2).mean().item<double>();
  return 10.0 * std::log10(255.0 * 255.0 / mean_square);
}

}  // namespace wan::test
