// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A network on all devices that a model runs on.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "parallel/rank_threads.h"
#include "transformer/wan_transformer_3d.h"

namespace wan {

/// The same network for each rank, and the threads that the ranks run in. On the CPU all ranks share one.
class Replicas {
 public:
  /// One rank alone, which is the calling thread. The model must outlive it.
  Replicas(const WanTransformer3DModel &model);  // implicit: most networks are alone
  /// models: of each rank. The threads must outlive it.
  Replicas(RankThreads &threads, std::vector<std::shared_ptr<const WanTransformer3DModel>> models)
      : threads_(&threads), models_(std::move(models)) {}

  RankThreads &threads() const { return *threads_; }
  const WanTransformer3DModel &front() const { return *models_.front(); }
  const WanTransformer3DModel &operator[](int64_t rank) const { return *models_[static_cast<size_t>(rank)]; }
  /// A copy for each rank. Made before run(), it does not wait for what a rank has queued.
  std::vector<at::Tensor> spread(const at::Tensor &x) const;

 private:
  RankThreads *threads_;
  std::vector<std::shared_ptr<const WanTransformer3DModel>> models_;
};

/// Makes a rank's network of the weights that it is handed.
using LoadNetwork =
    std::function<std::shared_ptr<const WanTransformer3DModel>(WeightSource &weights, int64_t rank)>;
/// A network for each rank, whose weights are read once.
Replicas load_replicas(RankThreads &threads, WeightSource &source, const LoadNetwork &load);

/// How the ranks share what a step predicts.
struct RankSharing {
  int32_t predictions;  // at the same time: 2 where prompt and negative prompt have ranks of their own
  int32_t ranks;        // that compute one of them together, by sequence parallelism

  bool operator==(const RankSharing &) const = default;
};
/// An even number of ranks halves guidance, which needs no exchange but the result's. More ranks than heads
/// or tokens have nothing to do.
RankSharing share_step(int64_t ranks, bool guided, int64_t heads, int64_t tokens);

}  // namespace wan
