// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/memory_mode.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "checkpoint/weights.h"
#include "device.h"
#include "image/clip_vision.h"
#include "text/umt5_encoder.h"
#include "transformer/block_store.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiny_decoder.h"

namespace wan {

namespace {

uint64_t sum(const WeightInventory &inventory) {
  uint64_t bytes = 0;
  for (const WeightRequest &request : inventory.requests()) bytes += request.bytes();
  return bytes;
}

template <typename Model, typename Config, typename... Arguments>
uint64_t weight_bytes(const Config &config, at::ScalarType dtype, Arguments... arguments) {
  WeightInventory inventory;
  const Model model(config, Weights(inventory, dtype), arguments...);
  return sum(inventory);
}

uint64_t vae_bytes(const CheckpointConfig &config, at::ScalarType dtype) {
  const uint64_t decoder = config.tiny_decoder ? weight_bytes<TinyDecoder>(*config.tiny_decoder, dtype) : 0;
  return decoder + weight_bytes<AutoencoderKLWan>(config.vae, dtype, encoder_dtype(config));
}

uint64_t encoder_bytes(const CheckpointConfig &config, at::ScalarType dtype) {
  const uint64_t image =
      config.image_encoder ? weight_bytes<CLIPVisionModel>(*config.image_encoder, dtype) : 0;
  return image + weight_bytes<UMT5EncoderModel>(config.text_encoder, dtype);
}

BlockFormats block_formats(const ComponentFiles &files) {
  return CheckpointWeights(files, at::kCPU, [](uint64_t) {}).block_formats();
}

bool fits_host(WanMemoryMode mode, const WeightBytes &weights, uint64_t host_free) {
  return !keeps_on_host(mode) || weights.blocks + kHostReserve <= host_free;
}

bool fits(WanMemoryMode mode, const WeightBytes &weights, uint64_t gpu_free, uint64_t host_free) {
  return weights.on_gpu(mode) + weights.text_encoder <= gpu_free && fits_host(mode, weights, host_free);
}

/// The modes in which a model fits a GPU, to begin an advice with: "memory=resident, ", or nothing.
std::string fitting_memory_modes(const WeightBytes &weights, uint64_t gpu_free, uint64_t host_free) {
  std::string modes;
  const auto add = [&](WanMemoryMode mode) {
    if (fits(mode, weights, gpu_free, host_free)) modes += "memory=" + memory_mode_name(mode) + ", ";
  };
  add(WAN_MEMORY_RESIDENT);
  if (weights.two_experts) add(WAN_MEMORY_ONE_EXPERT);
  add(WAN_MEMORY_STREAM);
  if (weights.splits) add(WAN_MEMORY_SPLIT);
  return modes;
}

/// Whether the GPU can compute in FP8 with activations of this dtype.
bool has_fp8(at::Device device, at::ScalarType dtype) {
  return dtype == at::kBFloat16 && compute_capability(device) >= kLeastFp8Capability;
}

WanMemoryMode choose_on_cpu(WanMemoryMode wanted) {
  return wanted == WAN_MEMORY_SPLIT ? WAN_MEMORY_SPLIT : WAN_MEMORY_RESIDENT;
}

}  // namespace

bool keeps_on_host(WanMemoryMode mode) {
  return mode == WAN_MEMORY_ONE_EXPERT || mode == WAN_MEMORY_STREAM;
}

/// The experts of causal models remember the same frames, and one may take over what the other keeps.
bool can_split(const CheckpointConfig &config, const std::vector<at::Device> &devices) {
  return config.transformer_2 && !config.causal && devices.size() % 2 == 0;
}

WeightBytes WeightBytes::of_experts(const CheckpointConfig &config, at::ScalarType dtype,
                                    WanQuantization quantization) {
  WeightBytes bytes{};
  const auto add_expert = [&](const std::string &component, const TransformerConfig &transformer) {
    WeightInventory inventory(
        quantization == WAN_QUANTIZATION_STORED ? block_formats(config.files.at(component)) : BlockFormats());
    const WanTransformer3DModel model(
        transformer, Weights(inventory, dtype, WanTransformer3DModel::kKeepInFp32), quantization);
    const uint64_t blocks = model.block_bytes();
    bytes.blocks += blocks;
    bytes.expert = std::max(bytes.expert, blocks);
    bytes.block = std::max(bytes.block, blocks / static_cast<uint64_t>(transformer.num_layers));
    for (const WeightRequest &request : inventory.requests())
      if (!request.name.starts_with("blocks.")) bytes.other += request.bytes();
  };
  add_expert("transformer", config.transformer);
  if (config.transformer_2) add_expert("transformer_2", *config.transformer_2);
  bytes.two_experts = config.transformer_2.has_value();
  return bytes;
}

WeightBytes WeightBytes::of(const CheckpointConfig &config, at::ScalarType dtype,
                            WanQuantization quantization, std::optional<at::ScalarType> vae_dtype) {
  WeightBytes bytes = of_experts(config, dtype, quantization);
  bytes.other += vae_bytes(config, vae_dtype.value_or(dtype));
  bytes.text_encoder = encoder_bytes(config, dtype);
  return bytes;
}

uint64_t companion_bytes(const CheckpointConfig &config, at::ScalarType dtype, at::ScalarType vae_dtype) {
  return vae_bytes(config, vae_dtype) + encoder_bytes(config, dtype);
}

uint64_t WeightBytes::on_gpu(WanMemoryMode mode) const {
  switch (mode) {
    case WAN_MEMORY_ONE_EXPERT:
    case WAN_MEMORY_SPLIT:
      return other + expert;
    case WAN_MEMORY_STREAM:
      return other + kStreamSlots * block;
    default:
      return other + blocks;
  }
}

uint64_t denoise_bytes(const TransformerConfig &config, at::ScalarType dtype, int64_t frames, int64_t height,
                       int64_t width, bool cached, int64_t ranks) {
  const int64_t all_tokens = frames * (height / config.patch_height) * (width / config.patch_width);
  const auto tokens = static_cast<uint64_t>((all_tokens + ranks - 1) / ranks);
  // There is most at a block's end: its input, the inputs of its attentions, the sum with their outputs, the
  // feed-forward's inside and output, and the sum with that. The reference operations, which float32 takes,
  // have steps between. A cache holds three tensors more, of each of two predictions.
  int64_t values = dtype == at::kBFloat16 ? 6 * config.inner_dim() + config.ffn_dim
                                          : 10 * config.inner_dim() + 2 * config.ffn_dim;
  if (cached) values += 6 * config.inner_dim();
  const uint64_t rotary = 4 * static_cast<uint64_t>(config.attention_head_dim);  // cos and sin of all pairs
  return tokens * (static_cast<uint64_t>(values) * c10::elementSize(dtype) + rotary);
}

int64_t most_frames(const CheckpointConfig &config, at::ScalarType dtype, int64_t height, int64_t width,
                    bool cached, uint64_t bytes, int64_t ranks) {
  const VaeConfig &vae = config.vae;
  const uint64_t one = denoise_bytes(config.transformer, dtype, 1, height / vae.spatial_scale(),
                                     width / vae.spatial_scale(), cached);
  const auto shared = static_cast<int64_t>(bytes * static_cast<uint64_t>(ranks) / one);
  const int64_t frames = std::min(shared, config.transformer.rope_max_seq_len);
  return frames == 0 ? 0 : (frames - 1) * vae.temporal_scale() + 1;
}

WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const WeightBytes &weights, uint64_t room,
                                 uint64_t gpu_free, uint64_t host_free) {
  if (wanted == WAN_MEMORY_ONE_EXPERT && !weights.two_experts) return WAN_MEMORY_RESIDENT;
  if (wanted != WAN_MEMORY_AUTO) return wanted;
  const auto fits_gpu = [&](WanMemoryMode mode) {
    return weights.on_gpu(mode) + std::max(room, weights.text_encoder) <= gpu_free;
  };
  if (fits_gpu(WAN_MEMORY_RESIDENT)) return WAN_MEMORY_RESIDENT;
  if (!fits_host(WAN_MEMORY_STREAM, weights, host_free))
    return weights.splits && fits_gpu(WAN_MEMORY_SPLIT) ? WAN_MEMORY_SPLIT : WAN_MEMORY_RESIDENT;
  return weights.two_experts && fits_gpu(WAN_MEMORY_ONE_EXPERT) ? WAN_MEMORY_ONE_EXPERT : WAN_MEMORY_STREAM;
}

WanMemoryMode choose_memory_mode(WanMemoryMode wanted, const CheckpointConfig &config, at::ScalarType dtype,
                                 WanQuantization quantization, const std::vector<at::Device> &devices,
                                 bool experts_alone) {
  const at::Device device = devices.front();
  const auto weights_in = [&](WanQuantization form) {
    return experts_alone ? WeightBytes::of_experts(config, dtype, form)
                         : WeightBytes::of(config, dtype, form, vae_dtype(dtype, device));
  };
  WeightBytes weights = weights_in(quantization);
  weights.splits = can_split(config, devices);
  if (wanted == WAN_MEMORY_SPLIT && !weights.splits)
    throw invalid(
        "memory=split is for models with two experts that make clips, on an even number of devices: choose "
        "another mode, or devices as device=cuda:0,1");
  const uint64_t device_free = least_free_memory(devices), host_free = free_memory(at::kCPU);
  const VaeConfig &vae = config.vae;
  const uint64_t room =
      denoise_bytes(config.transformer, dtype, (81 - 1) / vae.temporal_scale() + 1, 720 / vae.spatial_scale(),
                    1280 / vae.spatial_scale(), /*cached=*/false);
  const WanMemoryMode mode = device.is_cpu()
                                 ? choose_on_cpu(wanted)
                                 : choose_memory_mode(wanted, weights, room, device_free, host_free);
  const auto fits_in_fp8 = [&] {
    WeightBytes fp8 = weights_in(WAN_QUANTIZATION_FP8);
    fp8.splits = weights.splits;
    return fits(choose_memory_mode(wanted, fp8, room, device_free, host_free), fp8, device_free, host_free);
  };
  const bool advise_fp8 = quantization == WAN_QUANTIZATION_NONE &&
                          (device.is_cpu() || (!fits(mode, weights, device_free, host_free) &&
                                               has_fp8(device, dtype) && fits_in_fp8()));
  const bool advise_stored = quantization == WAN_QUANTIZATION_NONE && config.transformer_is_gguf();
  require_memory_for_weights(mode, weights, device, device_free, host_free,
                             std::string(dtype == at::kFloat ? "dtype=bfloat16, " : "") +
                                 (advise_stored ? "quantization=stored, " : "") +
                                 (advise_fp8 ? "quantization=fp8, " : ""));
  return mode;
}

void require_memory_for_weights(WanMemoryMode mode, const WeightBytes &weights, at::Device device,
                                uint64_t device_free, uint64_t host_free, const std::string &smaller) {
  const auto require = [&](const std::string &what, uint64_t needed, uint64_t free,
                           const std::string &advice) {
    if (needed > free)
      throw Error(WAN_OUT_OF_MEMORY, what + " about " + std::to_string(needed >> 20) +
                                         " MiB of memory, and " + std::to_string(free >> 20) +
                                         " MiB are free: choose " + advice + (advice.empty() ? "" : "or ") +
                                         "a smaller model");
  };
  const uint64_t needed = weights.on_gpu(device.is_cpu() ? WAN_MEMORY_RESIDENT : mode) + weights.text_encoder;
  if (device.is_cpu()) return require("On the CPU the model needs", needed, device_free, smaller);
  // The mode itself is among those that fit only where nothing is thrown.
  const std::string modes = fitting_memory_modes(weights, device_free, host_free);
  require("On the GPU the model needs", needed, device_free, modes + smaller + "device=cpu, ");
  if (keeps_on_host(mode))
    require("On the host the experts need", weights.blocks + kHostReserve, host_free, modes + smaller);
}

std::unique_lock<std::timed_mutex> wait_for_turn(const RunContext &context) {
  static auto &mutex = *new std::timed_mutex;  // also while the process ends
  std::unique_lock turn(mutex, std::try_to_lock);
  if (turn) return turn;
  context.log(WAN_LOG_INFO, "Another model is being loaded; this one waits for it");
  while (!turn.try_lock_for(std::chrono::milliseconds(50))) context.check();
  return turn;
}

at::ScalarType vae_dtype(at::ScalarType dtype, at::Device device) {
  return device.is_cpu() ? at::kFloat : dtype;
}

std::optional<at::ScalarType> encoder_dtype(const CheckpointConfig &config) {
  return config.encodes_pictures() ? std::optional(at::kFloat) : std::nullopt;
}

namespace {

const std::map<WanMemoryMode, std::string> kModeNames = {{WAN_MEMORY_AUTO, "auto"},
                                                         {WAN_MEMORY_RESIDENT, "resident"},
                                                         {WAN_MEMORY_ONE_EXPERT, "one-expert"},
                                                         {WAN_MEMORY_STREAM, "stream"},
                                                         {WAN_MEMORY_SPLIT, "split"}};

}  // namespace

std::string memory_mode_name(WanMemoryMode mode) {
  return kModeNames.at(mode);
}

WanMemoryMode parse_memory_mode(const std::string &name) {
  for (const auto &[mode, known] : kModeNames)
    if (name == known) return mode;
  throw invalid("memory is '" + printable(name) + "': choose auto, resident, one-expert, stream or split");
}

std::string smaller_memory_modes(WanMemoryMode mode, bool two_experts) {
  if (mode == WAN_MEMORY_STREAM) return "";
  const bool one_expert = mode != WAN_MEMORY_ONE_EXPERT && mode != WAN_MEMORY_SPLIT && two_experts;
  return std::string(one_expert ? "memory=one-expert, " : "") + "memory=stream, ";
}

}  // namespace wan
