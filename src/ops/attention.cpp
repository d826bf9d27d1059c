#include "ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <cmath>

namespace wan {

namespace {

constexpr int64_t kScoresBytes = int64_t{256} << 20;

/// softmax(q k^T / sqrt(d)) of [B, L, d], computed in float32.
at::Tensor weights(const at::Tensor &q, const at::Tensor &k) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
  if (q.scalar_type() != at::kBFloat16) return at::softmax(at::bmm(q, k.transpose(1, 2)).mul_(scale), -1);
  static const auto scaled_softmax = c10::Dispatcher::singleton()
                                         .findSchemaOrThrow("wan::scaled_softmax", "")
                                         .typed<at::Tensor(const at::Tensor &, double)>();
  // The product is not rounded: its accumulators are float32 anyway.
  return scaled_softmax.call(at::bmm(q, k.transpose(1, 2), at::kFloat), scale);
}

}  // namespace

// The CUDA module registers its kernel.
TORCH_LIBRARY_FRAGMENT(wan, library) {
  library.def("scaled_softmax(Tensor scores, float scale) -> Tensor");
}

at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v) {
  if (q.is_cpu()) return at::scaled_dot_product_attention(q, k, v);
  const int64_t batch = q.size(0), tokens = q.size(2);
  const int64_t block =
      std::max<int64_t>(1, kScoresBytes / (batch * tokens * static_cast<int64_t>(sizeof(float))));
  const at::Tensor keys = k.squeeze(1), values = v.squeeze(1);
  std::vector<at::Tensor> out;
  for (const at::Tensor &queries : q.squeeze(1).split(block, 1))
    out.push_back(at::bmm(weights(queries, keys), values));
  return at::cat(out, 1).unsqueeze(1);
}

}  // namespace wan
