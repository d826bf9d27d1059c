// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/components.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <utility>

#include "checkpoint/gguf.h"
#include "device.h"
#include "transformer/block_store.h"

namespace wan {

namespace {

/// For the decoders. Refuses values that no picture can come of, since frames leave as they are made.
class DecoderWeights : public WeightSource {
 public:
  DecoderWeights(WeightSource &source, const CheckpointConfig &config, const std::string &component)
      : source_(source), config_(config), component_(component) {}
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
  const std::string &component_;
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
  std::optional<BlockMatrix> load_blocks(const std::string &name, at::IntArrayRef shape) override {
    context_.check();
    return source_.load_blocks(name, shape);
  }

 private:
  WeightSource &source_;
  const RunContext &context_;
};

void require_quantization(const Placement &placement, const CheckpointConfig &config) {
  if (const std::string path = config.files.at("transformer").path();
      placement.quantization == WAN_QUANTIZATION_STORED && !is_gguf(path))
    throw invalid("quantization=stored is for the quantized weights of a .gguf, and " + path +
                  " is none: choose quantization=none");
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
          choose_memory_mode(memory, config, placement.dtype, placement.quantization, placement.devices)) {
  require_quantization(placement, config);
  const c10::DeviceGuard guard(device());
  start_ranks();
  // The source itself asks whether to go on.
  const RunContext unasked({});
  const Slots slots = make_block_slots();
  experts_.push_back(load_expert("transformer", config.transformer, ranks_.front(), slots));
  if (config.transformer_2)
    experts_.push_back(load_expert("transformer_2", *config.transformer_2, ranks_.back(), slots));
  vae_ = load<AutoencoderKLWan>("vae", config.vae, vae_dtype(placement.dtype, device()), unasked,
                                encoder_dtype(config));
  if (config.tiny_decoder)
    tiny_decoder_ = load<TinyDecoder>("tiny_decoder", *config.tiny_decoder,
                                      vae_dtype(placement.dtype, device()), unasked);
  if (!device().is_cpu()) return;
  text_encoder(unasked);
  if (config.image_encoder) image_encoder(unasked);
}

void Components::open(const std::string &component, at::Device device,
                      const std::vector<WeightRequest> &requests, const RunContext &context,
                      const std::function<void(WeightSource &)> &make) const {
  const std::unique_ptr<WeightSource> weights = source_->open(component, device);
  weights->expect(requests);
  CancellableWeights cancellable(*weights, context);
  DecoderWeights of_decoder(cancellable, config_, component);
  const bool makes_frames = component == "vae" || component == "tiny_decoder";
  make(makes_frames ? static_cast<WeightSource &>(of_decoder) : cancellable);
  source_->close(component, *weights);
}

template <typename Model, typename Config, typename... Arguments>
std::unique_ptr<const Model> Components::load(const std::string &component, const Config &config,
                                              at::ScalarType dtype, const RunContext &context,
                                              Arguments &&...arguments) const {
  WeightInventory inventory;
  const Model without_weights(config, Weights(inventory, dtype));
  std::unique_ptr<const Model> model;
  open(component, vae_device(), inventory.requests(), context, [&](WeightSource &source) {
    model =
        std::make_unique<const Model>(config, Weights(source, dtype), std::forward<Arguments>(arguments)...);
  });
  return model;
}

Components::Slots Components::make_block_slots() const {
  Slots slots(placement_.devices.size());
  if (!keeps_on_host(memory_mode_)) return slots;
  const int64_t blocks =
      config_.transformer_2 ? std::max(config_.transformer.num_layers, config_.transformer_2->num_layers) : 0;
  const size_t count = memory_mode_ == WAN_MEMORY_STREAM ? kStreamSlots : static_cast<size_t>(blocks);
  for (size_t rank = 0; rank < slots.size(); ++rank)
    slots[rank] = std::make_shared<BlockSlots>(placement_.devices[rank], count);
  return slots;
}

void Components::start_ranks() {
  const std::vector<at::Device> &devices = placement_.devices;
  if (memory_mode_ != WAN_MEMORY_SPLIT) {
    ranks_.emplace_back(devices);
    return;
  }
  const auto half = devices.begin() + std::ssize(devices) / 2;
  ranks_.emplace_back(std::vector<at::Device>(devices.begin(), half));
  ranks_.emplace_back(std::vector<at::Device>(half, devices.end()));
}

Replicas Components::load_expert(const std::string &component, const TransformerConfig &config,
                                 RankThreads &ranks, const Slots &slots) {
  const auto weights_of = [this](WeightSource &source) {
    return Weights(source, placement_.dtype, WanTransformer3DModel::kKeepInFp32);
  };
  const LoadNetwork load = [&](WeightSource &source, int64_t rank) {
    return std::make_shared<const WanTransformer3DModel>(config, weights_of(source), placement_.quantization,
                                                         slots[static_cast<size_t>(rank)]);
  };
  WeightInventory inventory;
  const WanTransformer3DModel without_weights(config, weights_of(inventory));
  std::optional<Replicas> expert;
  open(component, ranks.devices().front(), inventory.requests(), RunContext({}),
       [&](WeightSource &source) { expert = load_replicas(ranks, source, load); });
  return *expert;
}

const LatentDecoder &Components::decoder() const {
  if (tiny_decoder_) return *tiny_decoder_;
  return *vae_;
}

std::string Components::smaller_memory_modes() const {
  uint64_t blocks = 0;
  for (const Replicas &expert : experts_) blocks += expert.front().block_bytes();
  // In the other modes they are there already.
  const uint64_t on_host = blocks * placement_.devices.size() + kHostReserve;
  if (!keeps_on_host(memory_mode_) && on_host > free_memory(at::kCPU)) return "";
  return wan::smaller_memory_modes(memory_mode_, experts_.size() > 1);
}

const UMT5EncoderModel &Components::text_encoder(const RunContext &context) {
  if (!text_encoder_)
    text_encoder_ = load<UMT5EncoderModel>("text_encoder", config_.text_encoder, placement_.dtype, context);
  return *text_encoder_;
}

uint64_t Components::encoder_bytes() const {
  WeightInventory inventory;
  const Weights weights(inventory, placement_.dtype);
  if (!text_encoder_) const UMT5EncoderModel text(config_.text_encoder, weights);
  if (!image_encoder_ && config_.image_encoder) const CLIPVisionModel image(*config_.image_encoder, weights);
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
  if (device().is_cpu()) return;
  text_encoder_.reset();
  image_encoder_.reset();
}

}  // namespace wan
