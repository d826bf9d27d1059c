// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The embedded model's components, loaded on the tests' device.
#pragma once

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "common/reference.h"
#include "device.h"
#include "run_context.h"

namespace wan::test {

inline at::Device test_device() {
  return parse_device(test_device_name());
}

/// Nothing cancels, nobody listens.
inline const RunContext &quiet() {
  static const RunContext context({});
  return context;
}

inline const CheckpointConfig &tiny_config() {
  static const CheckpointConfig config = CheckpointConfig::read(tiny_model());
  return config;
}

template <typename Model, typename Config>
Model load_tiny(const std::string &component, const Config &config, at::ScalarType dtype = at::kFloat,
                std::set<std::string> keep_in_fp32 = {}) {
  const std::string stem = component == "text_encoder" ? "model" : "diffusion_pytorch_model";
  CheckpointWeights weights({tiny_config().directory / component, stem}, test_device(), [](uint64_t) {});
  return Model(config, Weights(weights, dtype, std::move(keep_in_fp32)));
}

}  // namespace wan::test
