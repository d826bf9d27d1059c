// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/experts.h"

#include <c10/core/DeviceGuard.h>

#include "device.h"
#include "transformer/block_store.h"

namespace wan {

namespace {

void require_quantization(const Placement &placement, const CheckpointConfig &config) {
  if (placement.quantization == WAN_QUANTIZATION_STORED && !config.transformer_is_gguf())
    throw invalid("quantization=stored is for the quantized weights of a .gguf, and " +
                  config.files.at("transformer").path() + " is none: choose quantization=none");
  const auto lacks_fp8 = [&placement](at::Device device) {
    return !device.is_cpu() &&
           (placement.dtype != at::kBFloat16 || compute_capability(device) < kLeastFp8Capability);
  };
  if (placement.quantization == WAN_QUANTIZATION_FP8 && std::ranges::any_of(placement.devices, lacks_fp8))
    throw invalid(
        "quantization=fp8 needs dtype=bfloat16 and a GPU with FP8 tensor cores (compute capability 8.9 or "
        "above)");
}

}  // namespace

std::vector<at::Device> Placement::all() const {
  std::vector<at::Device> all = devices;
  if (has_vae_apart()) all.push_back(of_vae());
  return all;
}

Experts::Experts(const CheckpointConfig &config, ComponentSource &source, const Placement &placement,
                 WanMemoryMode memory, bool alone)
    : config_(config),
      placement_(placement),
      memory_mode_(choose_memory_mode(memory, config, placement.dtype, placement.quantization,
                                      placement.devices, alone)) {
  require_quantization(placement, config);
  const c10::DeviceGuard guard(placement.devices.front());
  start_ranks();
  const Slots slots = make_block_slots();
  experts_.push_back(load("transformer", config.transformer, source, ranks_.front(), slots));
  if (config.transformer_2)
    experts_.push_back(load("transformer_2", *config.transformer_2, source, ranks_.back(), slots));
  for (const auto &of_rank : slots)
    if (of_rank) of_rank->wait();
}

void Experts::start_ranks() {
  const std::vector<at::Device> &devices = placement_.devices;
  if (memory_mode_ != WAN_MEMORY_SPLIT) {
    ranks_.emplace_back(devices);
    return;
  }
  const auto half = devices.begin() + std::ssize(devices) / 2;
  ranks_.emplace_back(std::vector<at::Device>(devices.begin(), half));
  ranks_.emplace_back(std::vector<at::Device>(half, devices.end()));
}

Experts::Slots Experts::make_block_slots() const {
  Slots slots(placement_.devices.size());
  if (!keeps_on_host(memory_mode_)) return slots;
  const int64_t blocks =
      config_.transformer_2 ? std::max(config_.transformer.num_layers, config_.transformer_2->num_layers) : 0;
  const size_t count = memory_mode_ == WAN_MEMORY_STREAM ? kStreamSlots : static_cast<size_t>(blocks);
  const auto arenas = std::make_shared<HostArenas>();
  for (size_t rank = 0; rank < slots.size(); ++rank)
    slots[rank] = std::make_shared<BlockSlots>(placement_.devices[rank], count, arenas);
  return slots;
}

Replicas Experts::load(const std::string &component, const TransformerConfig &config, ComponentSource &source,
                       RankThreads &ranks, const Slots &slots) const {
  const auto weights_of = [this](WeightSource &weights) {
    return Weights(weights, placement_.dtype, WanTransformer3DModel::kKeepInFp32);
  };
  const LoadNetwork load = [&](WeightSource &weights, int64_t rank) {
    return std::make_shared<const WanTransformer3DModel>(config, weights_of(weights), placement_.quantization,
                                                         slots[static_cast<size_t>(rank)]);
  };
  WeightInventory inventory;
  const WanTransformer3DModel without_weights(config, weights_of(inventory));
  const std::unique_ptr<WeightSource> weights = source.open(component, ranks.devices().front());
  weights->expect(inventory.requests());
  const Replicas expert = load_replicas(ranks, *weights, load);
  source.close(component, *weights);
  return expert;
}

std::string Experts::smaller_memory_modes() const {
  uint64_t blocks = 0;
  for (const Replicas &expert : experts_) blocks += expert.front().block_bytes();
  // In the other modes they are there already.
  const uint64_t on_host = blocks + kHostReserve;
  if (!keeps_on_host(memory_mode_) && on_host > free_memory(at::kCPU)) return "";
  return wan::smaller_memory_modes(memory_mode_, experts_.size() > 1);
}

}  // namespace wan
