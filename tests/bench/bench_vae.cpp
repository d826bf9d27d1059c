// SPDX-License-Identifier: LGPL-2.1-or-later
//
#include "bench_vae.h"

#include "random_weights.h"

namespace wan::bench {

VaeConfig VaeChoice::config() const {
  if (directory) return VaeConfig::parse(JsonFile(std::filesystem::path(directory) / "config.json"));
  VaeConfig config = released_config(z48 ? "TI2V-5B" : "T2V-A14B").vae;
  if (base_dim == 0) return config;
  config.base_dim = base_dim;
  config.decoder_base_dim.reset();
  return config;
}

std::unique_ptr<const AutoencoderKLWan> VaeChoice::load(at::Device device, at::ScalarType dtype,
                                                        std::optional<at::ScalarType> encoder_dtype) const {
  if (!directory) {
    const auto weights = random_components()->open("vae", device);
    return std::make_unique<AutoencoderKLWan>(config(), Weights(*weights, dtype), encoder_dtype);
  }
  CheckpointWeights weights({directory, "diffusion_pytorch_model"}, device, [](uint64_t) {});
  auto vae = std::make_unique<AutoencoderKLWan>(config(), Weights(weights, dtype), encoder_dtype);
  weights.check_all_loaded(encoder_dtype ? std::vector<std::string>() : AutoencoderKLWan::kEncoderTensors);
  return vae;
}

}  // namespace wan::bench
