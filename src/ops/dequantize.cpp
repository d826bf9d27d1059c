// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/dequantize.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "ops/kernels.h"

namespace wan {

namespace {

constexpr int64_t kThreadElements = 1 << 15;  // as many are worth a thread

at::Tensor dequantize_on_host(const at::Tensor &blocks, const BlockFormat &format) {
  const int64_t count = blocks.numel() / format.bytes;
  const at::Tensor values = at::empty({count * format.elements}, at::kFloat);
  const auto *bytes = static_cast<const std::byte *>(blocks.const_data_ptr());
  auto *const out = values.mutable_data_ptr<float>();
  at::parallel_for(0, count, kThreadElements / format.elements, [&](int64_t begin, int64_t end) {
    dequantize_blocks(format.type, bytes + begin * format.bytes, end - begin, out + begin * format.elements);
  });
  return values;
}

}  // namespace

at::Tensor dequantize(const at::Tensor &blocks, const BlockFormat &format, at::ScalarType dtype) {
  if (blocks.is_cpu()) return dequantize_on_host(blocks, format).to(dtype);
  const at::ScalarType rounded = dtype == at::kBFloat16 ? dtype : at::kFloat;
  const at::Tensor values =
      at::empty({blocks.numel() / format.bytes * format.elements}, blocks.options().dtype(rounded));
  kernels::Dequantize::call(blocks, static_cast<int64_t>(format.type), values);
  return values.to(dtype);
}

}  // namespace wan
