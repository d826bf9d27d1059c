// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What LibTorch's exceptions mean.
#pragma once

#include <c10/util/Exception.h>

namespace wan {

/// Whether a GPU has too little memory.
bool is_gpu_out_of_memory(const c10::Error &failure);
/// Whether the host has.
bool is_host_out_of_memory(const c10::Error &failure);

}  // namespace wan
