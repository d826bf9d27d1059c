// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The keys of a LoRA file in every published spelling: which module of an expert each is for, and what it is
// to it.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/tensor_file.h"
#include "error.h"

namespace wan {

/// What a key's tensor is to its module.
enum class LoraPart { kDown, kUp, kUpBias, kAlpha, kDiff, kDiffBias };

/// What a LoRA has for one expert.
struct LoraKeys {
  using Parts = std::map<LoraPart, std::string>;  // the keys of one module

  std::map<std::string, Parts> modules;  // by Diffusers' names
  std::vector<std::string> of_images;    // for what only models that see an image have, and this one has not

  /// keys: of the file; shapes: of the expert's tensors; component: "transformer" or "transformer_2"; source:
  /// names the file in errors. Throws wan::Error (WAN_INVALID), listing keys, where one is for another kind
  /// of adapter, for a text encoder or for nothing, where two are for the same, or where a half is missing.
  static LoraKeys sort(const std::vector<std::string> &keys, const TensorShapes &shapes,
                       const std::string &component, const std::string &source);
};

}  // namespace wan
