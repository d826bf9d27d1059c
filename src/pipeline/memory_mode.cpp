#include "pipeline/memory_mode.h"

#include <algorithm>

#include "checkpoint/weights.h"
#include "device.h"
#include "text/umt5_encoder.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan {

namespace {

uint64_t sum(const WeightInventory &inventory) {
  uint64_t bytes = 0;
  for (const WeightRequest &request : inventory.requests()) bytes += request.bytes();
  return bytes;
}

template <typename Model, typename Config>
uint64_t weight_bytes(const Config &config, at::ScalarType dtype) {
  WeightInventory inventory;
  const Model model(config, Weights(inventory, dtype));
  return sum(inventory);
}

}  // namespace

WeightBytes WeightBytes::of(const CheckpointConfig &config, at::ScalarType dtype,
                            WanQuantization quantization) {
  WeightBytes bytes{};
  const auto add_expert = [&](const TransformerConfig &transformer) {
    WeightInventory inventory;
    const WanTransformer3DModel model(
        transformer, Weights(inventory, dtype, WanTransformer3DModel::kKeepInFp32), quantization);
    const uint64_t blocks = model.block_bytes();
    bytes.blocks += blocks;
    bytes.expert = std::max(bytes.expert, blocks);
    bytes.block = std::max(bytes.block, blocks / static_cast<uint64_t>(transformer.num_layers));
    for (const WeightRequest &request : inventory.requests())
      if (!request.name.starts_with("blocks.")) bytes.other += request.bytes();
  };
  add_expert(config.transformer);
  if (config.transformer_2) add_expert(*config.transformer_2);
  bytes.two_experts = config.transformer_2.has_value();
  bytes.other += weight_bytes<AutoencoderKLWan>(config.vae, dtype);
  bytes.text_encoder = weight_bytes<UMT5EncoderModel>(config.text_encoder, dtype);
  return bytes;
}

uint64_t WeightBytes::on_gpu(WanMemoryMode mode) const {
  switch (mode) {
    case WAN_MEMORY_ONE_EXPERT:
      return other + expert;
    case WAN_MEMORY_STREAM:
      return other + kStreamSlots * block;
    default:
      return other + blocks;
  }
}

uint64_t denoise_bytes(const TransformerConfig &config, at::ScalarType dtype, int64_t frames, int64_t height,
                       int64_t width, bool cached) {
  const uint64_t tokens = static_cast<uint64_t>(frames * (height / config.patch_height)) *
                          static_cast<uint64_t>(width / config.patch_width);
  // The residual stream and what a block makes of it: about ten tensors, and the feed-forward's inside. A
  // cache holds three tensors more, of each of two predictions.
  const int64_t values = (cached ? 16 : 10) * config.inner_dim() + 2 * config.ffn_dim;
  return tokens * static_cast<uint64_t>(values) * c10::elementSize(dtype);
}

WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const WeightBytes &weights, uint64_t room,
                                 uint64_t gpu_free, uint64_t host_free) {
  if (wanted == WAN_MEMORY_ONE_EXPERT && !weights.two_experts) return WAN_MEMORY_RESIDENT;
  if (wanted != WAN_MEMORY_AUTO) return wanted;
  constexpr uint64_t kHostReserve = uint64_t{4} << 30;
  const auto fits_gpu = [&](WanMemoryMode mode) {
    return weights.on_gpu(mode) + std::max(room, weights.text_encoder) <= gpu_free;
  };
  const bool fits_host = weights.blocks + kHostReserve <= host_free;
  if (fits_gpu(WAN_MEMORY_RESIDENT) || !fits_host) return WAN_MEMORY_RESIDENT;
  return weights.two_experts && fits_gpu(WAN_MEMORY_ONE_EXPERT) ? WAN_MEMORY_ONE_EXPERT : WAN_MEMORY_STREAM;
}

WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const CheckpointConfig &config, at::ScalarType dtype,
                                 WanQuantization quantization, at::Device device) {
  if (device.is_cpu()) return WAN_MEMORY_RESIDENT;
  const VaeConfig &vae = config.vae;
  const uint64_t room =
      denoise_bytes(config.transformer, dtype, (81 - 1) / vae.temporal_scale() + 1, 720 / vae.spatial_scale(),
                    1280 / vae.spatial_scale(), /*cached=*/false);
  return choose_memory_mode(wanted, WeightBytes::of(config, dtype, quantization), room, free_memory(device),
                            free_memory(at::kCPU));
}

std::string smaller_memory_modes(WanMemoryMode mode) {
  switch (mode) {
    case WAN_MEMORY_STREAM:
      return "";
    case WAN_MEMORY_ONE_EXPERT:
      return "memory=stream, ";
    default:
      return "memory=one-expert, memory=stream, ";
  }
}

}  // namespace wan
