// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the host tells of itself: free memory, and whether it has an NVIDIA GPU.
#pragma once

#include <cstdint>
#include <filesystem>

namespace wan {

/// Bytes of host memory that this process could still allocate: the machine's (MemAvailable), or less where a
/// control group that the process is in, or a parent of it, may use no more (versions 1 and 2 of control
/// groups). What a group uses for cached files counts as free. `root` is the directory that has proc and sys.
uint64_t free_host_memory(const std::filesystem::path &root = "/");

/// Whether the host has an NVIDIA GPU, used or not: the driver says so, or the PCI bus does, where there is
/// no driver. `root` is the directory that has dev and sys.
bool has_nvidia_gpu(const std::filesystem::path &root = "/");

}  // namespace wan
