// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The ceiling that a decoder's speed is held against.
#pragma once

#include <c10/core/Device.h>

namespace wan::bench {

/// LibTorch's matrix product of random matrices: 8192^3 in bfloat16 on a GPU, 1024^3 in float32 on the CPU,
/// where bfloat16 may be emulated. The median of warm runs.
double matmul_tflop_per_s(at::Device device);

}  // namespace wan::bench
