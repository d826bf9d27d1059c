// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Random weights of a model's true shapes, made on the device: speed and memory do not need a checkpoint.
#pragma once

#include <memory>

#include "pipeline/component_source.h"

namespace wan::bench {

/// The released Wan2.2-T2V-A14B: both experts, UMT5-XXL and the z16 VAE. `layers` replaces the number of
/// transformer blocks where it is above 0.
CheckpointConfig a14b_config(int64_t layers);

std::unique_ptr<ComponentSource> random_components(at::Device device);

}  // namespace wan::bench
