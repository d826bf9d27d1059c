// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <ATen/core/Tensor.h>

#include "ops/ggml_types.h"

namespace wan {

/// What quantized blocks stand for, on their device: [elements]. blocks: [bytes] uint8, contiguous. The
/// values are those of dequantize_blocks(), rounded to dtype.
at::Tensor dequantize(const at::Tensor &blocks, const BlockFormat &format, at::ScalarType dtype);

}  // namespace wan
