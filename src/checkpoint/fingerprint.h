// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What tells the experts of two checkpoints apart.
#pragma once

#include <string>

#include "checkpoint/config.h"

namespace wan {

/// A hexadecimal SHA-256 of the experts' settings, of their tensors' names, types and shapes, and of the
/// values of small tensors, which differ wherever a model was trained further. Large ones are not read.
/// Throws wan::Error.
std::string fingerprint_experts(const CheckpointConfig &config);

}  // namespace wan
