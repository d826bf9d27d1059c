// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/components.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <utility>

#include "device.h"
#include "transformer/block_store.h"

namespace wan {

namespace {

/// Refuses values that no picture can come of. For the decoders, whose frames leave as they are made.
class UsableWeights : public WeightSource {
 public:
  UsableWeights(WeightSource &source, const CheckpointConfig &config, std::string component)
      : source_(source), config_(config), component_(std::move(component)) {}
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    at::Tensor tensor = source_.load(name, shape, dtype);
    if (!is_usable(tensor))
      throw invalid(config_.files.at(component_).path() + ": tensor '" + printable(name) +
                    "' is not finite or is beyond 1e6");
    return tensor;
  }

 private:
  WeightSource &source_;
  const CheckpointConfig &config_;
  const std::string component_;
};

/// Asks before each tensor whether to go on.
class CancellableWeights : public WeightSource {
 public:
  CancellableWeights(WeightSource &source, const RunContext &context) : source_(source), context_(context) {}
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    context_.check();
    return source_.load(name, shape, dtype);
  }
  std::optional<ScaledFp8> load_fp8(const std::string &name, at::IntArrayRef shape) override {
    context_.check();
    return source_.load_fp8(name, shape);
  }

 private:
  WeightSource &source_;
  const RunContext &context_;
};

void require_quantization(const Placement &placement) {
  if (placement.quantization == WAN_QUANTIZATION_FP8 && !placement.device.is_cpu() &&
      (placement.dtype != at::kBFloat16 || compute_capability(placement.device) < kLeastFp8Capability))
    throw invalid(
        "quantization=fp8 needs dtype=bfloat16 and a GPU with FP8 tensor cores (compute capability 8.9 or "
        "above)");
}

}  // namespace

bool is_usable(const at::Tensor &values) {
  constexpr double kGreatest = 1e6;
  return values.abs().max().item<double>() <= kGreatest;  // false of NaN
}

Components::Components(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source,
                       Tokenizer tokenizer, const Placement &placement, WanMemoryMode memory)
    : config_(config),
      source_(std::move(source)),
      tokenizer_(std::move(tokenizer)),
      placement_(placement),
      memory_mode_(
          choose_memory_mode(memory, config, placement.dtype, placement.quantization, placement.device)) {
  require_quantization(placement);
  const at::Device device = placement.device;
  const at::ScalarType dtype = placement.dtype;
  const c10::DeviceGuard guard(device);
  // The source itself asks whether to go on.
  const RunContext unasked({});
  const std::shared_ptr<BlockSlots> slots = make_block_slots();
  transformer_ =
      load<WanTransformer3DModel>("transformer", config.transformer, dtype, unasked,
                                  WanTransformer3DModel::kKeepInFp32, placement.quantization, slots);
  if (config.transformer_2)
    transformer_2_ =
        load<WanTransformer3DModel>("transformer_2", *config.transformer_2, dtype, unasked,
                                    WanTransformer3DModel::kKeepInFp32, placement.quantization, slots);
  vae_ =
      load<AutoencoderKLWan>("vae", config.vae, vae_dtype(dtype, device), unasked, {}, encoder_dtype(config));
  if (config.tiny_decoder)
    tiny_decoder_ =
        load<TinyDecoder>("tiny_decoder", *config.tiny_decoder, vae_dtype(dtype, device), unasked);
  if (!device.is_cpu()) return;
  text_encoder(unasked);
  if (config.image_encoder) image_encoder(unasked);
}

template <typename Model, typename Config, typename... Arguments>
std::unique_ptr<const Model> Components::load(const std::string &component, const Config &config,
                                              at::ScalarType dtype, const RunContext &context,
                                              const std::set<std::string> &keep_in_fp32,
                                              Arguments &&...arguments) const {
  const std::unique_ptr<WeightSource> weights = source_->open(component);
  WeightInventory inventory;
  const Model without_weights(config, Weights(inventory, dtype, keep_in_fp32));
  weights->expect(inventory.requests());
  CancellableWeights cancellable(*weights, context);
  UsableWeights usable(cancellable, config_, component);
  const bool makes_frames = component == "vae" || component == "tiny_decoder";
  WeightSource &checked = makes_frames ? static_cast<WeightSource &>(usable) : cancellable;
  auto model = std::make_unique<const Model>(config, Weights(checked, dtype, keep_in_fp32),
                                             std::forward<Arguments>(arguments)...);
  source_->close(component, *weights);
  return model;
}

std::shared_ptr<BlockSlots> Components::make_block_slots() const {
  if (memory_mode_ == WAN_MEMORY_STREAM) return std::make_shared<BlockSlots>(placement_.device, kStreamSlots);
  if (memory_mode_ != WAN_MEMORY_ONE_EXPERT) return nullptr;
  const int64_t blocks = std::max(config_.transformer.num_layers, config_.transformer_2->num_layers);
  return std::make_shared<BlockSlots>(placement_.device, static_cast<size_t>(blocks));
}

const LatentDecoder &Components::decoder() const {
  if (tiny_decoder_) return *tiny_decoder_;
  return *vae_;
}

std::string Components::smaller_memory_modes() const {
  const uint64_t blocks = transformer_->block_bytes() + (transformer_2_ ? transformer_2_->block_bytes() : 0);
  // In the other modes they are there already.
  if (memory_mode_ == WAN_MEMORY_RESIDENT && blocks + kHostReserve > free_memory(at::kCPU)) return "";
  return wan::smaller_memory_modes(memory_mode_, transformer_2_ != nullptr);
}

const UMT5EncoderModel &Components::text_encoder(const RunContext &context) {
  if (!text_encoder_)
    text_encoder_ = load<UMT5EncoderModel>("text_encoder", config_.text_encoder, placement_.dtype, context);
  return *text_encoder_;
}

uint64_t Components::text_encoder_bytes() const {
  if (text_encoder_) return 0;
  WeightInventory inventory;
  const UMT5EncoderModel without_weights(config_.text_encoder, Weights(inventory, placement_.dtype));
  uint64_t bytes = 0;
  for (const WeightRequest &request : inventory.requests()) bytes += request.bytes();
  return bytes;
}

const CLIPVisionModel &Components::image_encoder(const RunContext &context) {
  if (!image_encoder_)
    image_encoder_ =
        load<CLIPVisionModel>("image_encoder", *config_.image_encoder, placement_.dtype, context);
  return *image_encoder_;
}

void Components::release_encoders() {
  if (placement_.device.is_cpu()) return;
  text_encoder_.reset();
  image_encoder_.reset();
}

}  // namespace wan
