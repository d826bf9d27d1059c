// SPDX-License-Identifier: LGPL-2.1-or-later
//
#include "bench_vae.h"

#include "random_weights.h"

namespace wan::bench {

namespace {

/// The latents' statistics do not matter to speed.
VaeConfig z48_config() {
  const Json json = {{"_class_name", "AutoencoderKLWan"},
                     {"base_dim", 160},
                     {"decoder_base_dim", 256},
                     {"z_dim", 48},
                     {"is_residual", true},
                     {"patch_size", 2},
                     {"in_channels", 12},
                     {"out_channels", 12},
                     {"latents_mean", std::vector<double>(48, 0)},
                     {"latents_std", std::vector<double>(48, 1)}};
  return VaeConfig::parse(JsonFile(std::string_view(json.dump()), "TI2V-5B"));
}

}  // namespace

VaeConfig VaeChoice::config() const {
  if (directory) return VaeConfig::parse(JsonFile(std::filesystem::path(directory) / "config.json"));
  VaeConfig config = z48 ? z48_config() : a14b_config(0).vae;
  if (base_dim == 0) return config;
  config.base_dim = base_dim;
  config.decoder_base_dim.reset();
  return config;
}

std::unique_ptr<const AutoencoderKLWan> VaeChoice::load(at::Device device, at::ScalarType dtype,
                                                        std::optional<at::ScalarType> encoder_dtype) const {
  if (!directory) {
    const auto weights = random_components(device)->open("vae");
    return std::make_unique<AutoencoderKLWan>(config(), Weights(*weights, dtype), encoder_dtype);
  }
  CheckpointWeights weights({directory, "diffusion_pytorch_model"}, device, [](uint64_t) {});
  auto vae = std::make_unique<AutoencoderKLWan>(config(), Weights(weights, dtype), encoder_dtype);
  weights.check_all_loaded(encoder_dtype ? std::vector<std::string>() : AutoencoderKLWan::kEncoderTensors);
  return vae;
}

}  // namespace wan::bench
