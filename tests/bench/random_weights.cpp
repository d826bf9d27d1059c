// SPDX-License-Identifier: LGPL-2.1-or-later
#include "random_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <optional>
#include <vector>

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
  std::unique_ptr<WeightSource> open(const std::string &, at::Device device) override {
    return std::make_unique<RandomWeights>(device);
  }
  void close(const std::string &, const WeightSource &) override {}
};

/// In what the released models differ; all else of a transformer is as the class's defaults have it.
struct Released {
  const char *name;
  const char *transformer;
  bool small_latents = false;                 // the VAE with 48 channels
  std::optional<double> boundary_ratio = {};  // of two experts
};

constexpr Released kReleased[] = {
    {.name = "T2V-A14B", .transformer = "{}", .boundary_ratio = 0.875},
    {.name = "I2V-A14B", .transformer = R"({"in_channels": 36, "out_channels": 16})", .boundary_ratio = 0.9},
    {.name = "TI2V-5B",
     .transformer = R"({"in_channels": 48, "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30})",
     .small_latents = true},
    {.name = "Wan2.1-T2V-1.3B",
     .transformer = R"({"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30})"},
    {.name = "Wan2.1-T2V-14B", .transformer = "{}"},
    {.name = "Wan2.1-I2V-14B",
     .transformer =
         R"({"in_channels": 36, "out_channels": 16, "image_dim": 1280, "added_kv_proj_dim": 5120})"},
    {.name = "Wan2.1-FLF2V-14B", .transformer = R"({"in_channels": 36, "out_channels": 16, "image_dim": 1280,
                        "added_kv_proj_dim": 5120, "pos_embed_seq_len": 514})"},
};

const Released &find_released(const std::string &model) {
  const auto *const found = std::ranges::find(kReleased, model, &Released::name);
  if (found == std::end(kReleased))
    throw invalid("There is no model '" + model + "' with random weights: choose one of " +
                  released_models());
  return *found;
}

JsonFile file(const Json &json) {
  return JsonFile(std::string_view(json.dump()), "random weights");
}

/// The latents' statistics do not matter to speed.
VaeConfig vae_config(bool small_latents) {
  const int64_t z_dim = small_latents ? 48 : 16;
  Json json = {{"_class_name", "AutoencoderKLWan"},
               {"z_dim", z_dim},
               {"latents_mean", std::vector<double>(static_cast<size_t>(z_dim), 0)},
               {"latents_std", std::vector<double>(static_cast<size_t>(z_dim), 1)}};
  if (small_latents)
    json.update({{"base_dim", 160},
                 {"decoder_base_dim", 256},
                 {"is_residual", true},
                 {"patch_size", 2},
                 {"in_channels", 12},
                 {"out_channels", 12}});
  return VaeConfig::parse(file(json));
}

CLIPVisionConfig clip_config() {
  return CLIPVisionConfig::parse(file({{"model_type", "clip_vision_model"},
                                       {"hidden_act", "gelu"},
                                       {"hidden_size", 1280},
                                       {"intermediate_size", 5120},
                                       {"num_hidden_layers", 32},
                                       {"num_attention_heads", 16},
                                       {"patch_size", 14}}));
}

TransformerConfig transformer_config(const Released &released, int64_t layers) {
  Json json = Json::parse(released.transformer);
  json["_class_name"] = "WanTransformer3DModel";
  if (layers > 0) json["num_layers"] = layers;
  return TransformerConfig::parse(file(json));
}

}  // namespace

std::string released_models() {
  std::string names;
  for (const Released &released : kReleased)
    names += (names.empty() ? "" : ", ") + std::string(released.name);
  return names;
}

CheckpointConfig released_config(const std::string &model, int64_t layers) {
  const Released &released = find_released(model);
  CheckpointConfig config{};
  config.boundary_ratio = released.boundary_ratio;
  config.transformer = transformer_config(released, layers);
  if (released.boundary_ratio) config.transformer_2 = config.transformer;
  config.vae = vae_config(released.small_latents);
  config.text_encoder = TextEncoderConfig::parse(file({{"model_type", "umt5"}}));
  if (config.transformer.image_dim) config.image_encoder = clip_config();
  config.expand_timesteps = released.small_latents;
  config.variant = &config.find_variant();
  config.scheduler = SchedulerConfig::parse(
      file({{"_class_name", "UniPCMultistepScheduler"}, {"flow_shift", config.variant->flow_shift}}));
  config.defaults = config.parse_defaults(file({{"steps", 2}}));
  return config;
}

std::unique_ptr<ComponentSource> random_components() {
  return std::make_unique<RandomComponents>();
}

}  // namespace wan::bench
