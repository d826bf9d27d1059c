// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Compiled once for all of the engine's sources: LibTorch's headers take ten seconds of each of them. Each source
// still includes what it uses.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <nlohmann/json.hpp>
