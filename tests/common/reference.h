// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Reference tensors, and how far a tensor is from one.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "checkpoint/tensor_file.h"

namespace wan::test {

/// The directory of the sources, and the embedded model in it; given by the build.
std::string source_path(const std::string &relative);
std::string tiny_model();

/// The device the tests run on: WAN_TEST_DEVICE, or the CPU.
std::string test_device_name();

/// A safetensors file of the tests, read by our own reader.
class Reference {
 public:
  explicit Reference(const std::string &relative_path);
  /// In its own dtype. Throws where there is no such tensor.
  at::Tensor operator[](const std::string &name) const;

 private:
  TensorFile file_;
};

/// ‖out − ref‖ / ‖ref‖ in float64; NaN where there is one.
double relative_error(const at::Tensor &out, const at::Tensor &reference);

/// Peak signal-to-noise ratio in dB of 8-bit images.
double psnr(const at::Tensor &out, const at::Tensor &reference);

}  // namespace wan::test
