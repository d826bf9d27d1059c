// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Random weights of a model's true shapes, made on the device: speed and memory do not need a checkpoint.
#pragma once

#include <memory>
#include <string>

#include "pipeline/component_source.h"

namespace wan::bench {

/// What --random takes: "T2V-A14B, I2V-A14B, ...".
std::string released_models();

/// A released model: its transformers, UMT5-XXL, its VAE, and CLIP where it sees pictures through it. It
/// suggests two steps. `layers` replaces the number of transformer blocks where it is above 0. Throws
/// wan::Error (WAN_INVALID) for a name that is not among released_models().
CheckpointConfig released_config(const std::string &model, int64_t layers = 0);

std::unique_ptr<ComponentSource> random_components();

}  // namespace wan::bench
