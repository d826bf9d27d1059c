// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Which kernels serve a GPU. Hopper GPUs have kernels of their own (ops/cuda/*_sm90.cu) beside those for all
// GPUs; nothing else asks what kind of GPU it is.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace wan {

enum class KernelSet { kBest, kGeneral };

/// Of a value of GST_WAN_KERNELS: "general", or null or empty for the best. Throws wan::Error (WAN_INVALID)
/// for any other.
KernelSet parse_kernel_set(const char *value);
/// What the environment asks for; it is read once. Throws as parse_kernel_set().
KernelSet kernel_set();

/// Whether the kernels for Hopper GPUs serve the device.
bool has_sm90_kernels(at::Device device);

/// For the log, as "the kernels for Hopper GPUs".
std::string describe_kernels(at::Device device);

}  // namespace wan
