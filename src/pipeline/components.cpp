// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/components.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include <utility>

#include "device.h"

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

/// The placement. Throws wan::Error (WAN_OUT_OF_MEMORY), before anything is read, where the VAE and the
/// encoders do not fit a device of their own.
const Placement &with_room_for_companions(const Placement &placement, const CheckpointConfig &config) {
  if (!placement.has_vae_apart()) return placement;
  const at::Device device = placement.of_vae();
  const uint64_t needed =
      companion_bytes(config, placement.dtype, vae_dtype(placement.dtype, placement.devices.front()));
  const uint64_t free = free_memory(device);
  if (needed > free)
    throw Error(WAN_OUT_OF_MEMORY, "The decoder and the encoders need about " + std::to_string(needed >> 20) +
                                       " MiB of memory on " + describe_device(device) + ", and " +
                                       std::to_string(free >> 20) +
                                       " MiB are free: choose another decoder-device, or none");
  return placement;
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
      experts_(config_, *source_, with_room_for_companions(placement, config_), memory,
               placement.has_vae_apart()) {
  const c10::DeviceGuard guard(device());
  // The source itself asks whether to go on.
  const RunContext unasked({});
  vae_ = load<AutoencoderKLWan>("vae", config.vae, vae_dtype(placement.dtype, device()), unasked,
                                encoder_dtype(config));
  if (config.tiny_decoder)
    tiny_decoder_ = load<TinyDecoder>("tiny_decoder", *config.tiny_decoder,
                                      vae_dtype(placement.dtype, device()), unasked);
  if (!device().is_cpu()) return;
  text_encoder(unasked);
  if (config.image_encoder) image_encoder(unasked);
}

void Components::open(const std::string &component, const std::vector<WeightRequest> &requests,
                      const RunContext &context, const std::function<void(WeightSource &)> &make) const {
  const std::unique_ptr<WeightSource> weights = source_->open(component, vae_device());
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
  open(component, inventory.requests(), context, [&](WeightSource &source) {
    model =
        std::make_unique<const Model>(config, Weights(source, dtype), std::forward<Arguments>(arguments)...);
  });
  return model;
}

const LatentDecoder &Components::decoder() const {
  if (tiny_decoder_) return *tiny_decoder_;
  return *vae_;
}

const UMT5EncoderModel &Components::text_encoder(const RunContext &context) {
  if (!text_encoder_)
    text_encoder_ = load<UMT5EncoderModel>("text_encoder", config_.text_encoder, placement().dtype, context);
  return *text_encoder_;
}

uint64_t Components::encoder_bytes() const {
  WeightInventory inventory;
  const Weights weights(inventory, placement().dtype);
  if (!text_encoder_) const UMT5EncoderModel text(config_.text_encoder, weights);
  if (!image_encoder_ && config_.image_encoder) const CLIPVisionModel image(*config_.image_encoder, weights);
  uint64_t bytes = 0;
  for (const WeightRequest &request : inventory.requests()) bytes += request.bytes();
  return bytes;
}

const CLIPVisionModel &Components::image_encoder(const RunContext &context) {
  if (!image_encoder_)
    image_encoder_ =
        load<CLIPVisionModel>("image_encoder", *config_.image_encoder, placement().dtype, context);
  return *image_encoder_;
}

void Components::release_encoders() {
  if (device().is_cpu()) return;
  text_encoder_.reset();
  image_encoder_.reset();
}

}  // namespace wan
