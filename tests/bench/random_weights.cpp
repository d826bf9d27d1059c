// SPDX-License-Identifier: LGPL-2.1-or-later
#include "random_weights.h"

#include <ATen/ATen.h>

#include <cmath>

namespace wan::bench {

namespace {

/// Matrices of variance 1 / fan-in, so that activations neither vanish nor overflow; ones for norms, small
/// biases.
class RandomWeights : public WeightSource {
 public:
  explicit RandomWeights(at::Device device) : device_(device) {}

  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override {
    const auto options = at::dtype(at::kFloat).device(device_);  // so that each dtype's are the same, rounded
    const bool scale =
        name.ends_with("gamma") || (name.find("norm") != std::string::npos && name.ends_with("weight"));
    if (scale) return at::ones(shape, options).to(dtype);
    const int64_t count = c10::multiply_integers(shape);
    const double fan_in = shape.size() > 1 ? static_cast<double>(count / shape[0]) : 1e4;
    return at::empty(shape, options).normal_(0.0, 1.0 / std::sqrt(fan_in)).to(dtype);
  }

 private:
  const at::Device device_;
};

class RandomComponents : public ComponentSource {
 public:
  explicit RandomComponents(at::Device device) : device_(device) {}
  std::unique_ptr<WeightSource> open(const std::string &) override {
    return std::make_unique<RandomWeights>(device_);
  }
  void close(const std::string &, const WeightSource &) override {}

 private:
  const at::Device device_;
};

JsonFile json(const char *text) {
  return JsonFile(std::string_view(text), "A14B");
}

}  // namespace

CheckpointConfig a14b_config(int64_t layers) {
  CheckpointConfig config{};
  config.boundary_ratio = 0.875;
  // The classes' defaults are A14B's.
  config.transformer = TransformerConfig::parse(json(R"({"_class_name": "WanTransformer3DModel"})"));
  if (layers > 0) config.transformer.num_layers = layers;
  config.transformer_2 = config.transformer;
  config.vae = VaeConfig::parse(json(
      R"({"_class_name": "AutoencoderKLWan", "latents_mean": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0],
          "latents_std": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]})"));
  config.text_encoder = TextEncoderConfig::parse(json(R"({"model_type": "umt5"})"));
  config.variant = &config.find_variant();
  config.scheduler =
      SchedulerConfig::parse(json(R"({"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0})"));
  config.defaults = {.width = 832,
                     .height = 480,
                     .num_frames = 81,
                     .fps_n = 16,
                     .fps_d = 1,
                     .steps = 2,
                     .guidance_scale = 4.0,
                     .guidance_scale_2 = 3.0,
                     .flow_shift = 3.0,
                     .scheduler = WAN_SCHEDULER_UNIPC,
                     .size_multiple = 16,
                     .frames_multiple = 4,
                     .variant = "",
                     .pictures = {}};
  return config;
}

std::unique_ptr<ComponentSource> random_components(at::Device device) {
  return std::make_unique<RandomComponents>(device);
}

}  // namespace wan::bench
