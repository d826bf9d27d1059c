// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/replicas.h"

#include <algorithm>
#include <utility>

#include "pipeline/replicated_weights.h"

namespace wan {

namespace {

/// A thread's own, as run() is for one call at a time.
RankThreads &calling_thread() {
  thread_local RankThreads alone({at::kCPU});
  return alone;
}

}  // namespace

Replicas::Replicas(const WanTransformer3DModel &model)
    : threads_(&calling_thread()), models_{{std::shared_ptr<const WanTransformer3DModel>(), &model}} {}

std::vector<at::Tensor> Replicas::spread(const at::Tensor &x) const {
  std::vector<at::Tensor> copies;
  for (const auto &model : models_) copies.push_back(x.to(model->device()));
  return copies;
}

/// On the CPU one network serves all ranks.
Replicas load_replicas(RankThreads &threads, WeightSource &source, const LoadNetwork &load) {
  const int64_t copies = threads.devices().front().is_cpu() ? 1 : threads.count();
  const std::vector<SequenceGroup> members = threads.group(0, copies);
  std::vector<std::shared_ptr<const WanTransformer3DModel>> models(static_cast<size_t>(threads.count()));
  threads.run([&](int64_t rank) {
    if (rank >= copies) return;
    const auto index = static_cast<size_t>(rank);
    ReplicatedWeights replicated(source, members[index]);
    models[index] = load(replicated, rank);
  });
  std::fill(models.begin() + copies, models.end(), models.front());
  return {threads, std::move(models)};
}

RankSharing share_step(int64_t ranks, bool guided, int64_t heads, int64_t tokens) {
  const int64_t predictions = guided && ranks % 2 == 0 ? 2 : 1;
  return {static_cast<int32_t>(predictions),
          static_cast<int32_t>(std::max<int64_t>(1, std::min({ranks / predictions, heads, tokens})))};
}

}  // namespace wan
