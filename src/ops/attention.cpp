#include "ops/attention.h"

#include <ATen/ATen.h>

#include <cmath>

namespace wan {

namespace {

constexpr int64_t kScoresBytes = int64_t{256} << 20;

/// In float32, which for narrower q and k the product's accumulator is anyway.
at::Tensor scores(const at::Tensor &q, const at::Tensor &k) {
  const at::Tensor product = q.scalar_type() == at::kFloat ? at::bmm(q, k.transpose(1, 2))
                                                           : at::bmm(q, k.transpose(1, 2), at::kFloat);
  return product.mul_(1.0 / std::sqrt(static_cast<double>(q.size(-1))));
}

}  // namespace

at::Tensor wide_head_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v) {
  if (q.is_cpu()) return at::scaled_dot_product_attention(q, k, v);
  const int64_t batch = q.size(0), tokens = q.size(2);
  const int64_t block =
      std::max<int64_t>(1, kScoresBytes / (batch * tokens * static_cast<int64_t>(sizeof(float))));
  const at::Tensor keys = k.squeeze(1), values = v.squeeze(1);
  std::vector<at::Tensor> out;
  for (const at::Tensor &queries : q.squeeze(1).split(block, 1))
    out.push_back(at::bmm(at::softmax(scores(queries, keys), -1).to(v.scalar_type()), values));
  return at::cat(out, 1).unsqueeze(1);
}

}  // namespace wan
