// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A small causal checkpoint with random weights, which takes its other components of the embedded model.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "common/reference.h"
#include "common/write_safetensors.h"
#include "transformer/wan_transformer_3d.h"

namespace wan::test {

using Json = nlohmann::json;

inline Json causal_transformer_json() {
  return {{"_class_name", "CausalWanTransformer3DModel"},
          {"num_attention_heads", 2},
          {"attention_head_dim", 12},
          {"in_channels", 16},
          {"out_channels", 16},
          {"text_dim", 128},
          {"ffn_dim", 32},
          {"num_layers", 2},
          {"num_frames_per_block", 3},
          {"local_attn_size", 12},
          {"sink_size", 3},
          {"rope_cache_policy", "relativistic"}};
}

/// Of all tensors that such a model asks for, by Diffusers' names. The same each time.
inline Tensors random_transformer(const Json &json, uint64_t seed = 1) {
  WeightInventory inventory;
  const std::string text = json.dump();
  const TransformerConfig config = TransformerConfig::parse(JsonFile(std::string_view(text), "config.json"));
  const WanTransformer3DModel model(config, Weights(inventory, at::kFloat));
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  Tensors tensors;
  for (const WeightRequest &request : inventory.requests()) {
    const double fan_in = request.shape.size() > 1
                              ? static_cast<double>(c10::multiply_integers(request.shape) / request.shape[0])
                              : 25;
    tensors[request.name] = at::randn(request.shape, generator, at::dtype(at::kFloat)) / std::sqrt(fan_in);
  }
  return tensors;
}

/// DIRECTORY/causal, beside DIRECTORY/wan-tiny.
class CausalModel {
 public:
  explicit CausalModel(const std::filesystem::path &directory, const Json &suggestions = {},
                       const Json &transformer = causal_transformer_json())
      : directory_(directory / "causal") {
    std::filesystem::create_directories(directory_ / "transformer");
    std::filesystem::create_directory_symlink(tiny_model(), directory / "wan-tiny");
    const auto pair = [](const char *library, const char *type) { return Json::array({library, type}); };
    write_json("model_index.json", {{"_class_name", "WanCausalDMDPipeline"},
                                    {"transformer", pair("diffusers", "CausalWanTransformer3DModel")},
                                    {"vae", pair("diffusers", "AutoencoderKLWan")},
                                    {"text_encoder", pair("transformers", "UMT5EncoderModel")},
                                    {"tokenizer", pair("transformers", "T5TokenizerFast")}});
    write_json("transformer/config.json", transformer);
    Json all = {{"components", "../wan-tiny"}, {"width", 48}, {"height", 32}};
    all.update(suggestions.is_null() ? Json::object() : suggestions);
    write_json("gst-wan.json", all);
    write_safetensors(directory_ / "transformer" / "diffusion_pytorch_model.safetensors",
                      random_transformer(transformer));
  }

  std::string directory() const { return directory_.string(); }

 private:
  void write_json(const std::filesystem::path &file, const Json &json) const {
    std::ofstream(directory_ / file) << json;
  }

  const std::filesystem::path directory_;
};

}  // namespace wan::test
