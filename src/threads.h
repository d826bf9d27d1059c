// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Threads where the system may refuse one: an error as any other.
#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>
#include <system_error>
#include <thread>

#include "error.h"

namespace wan {

/// For a thread that the system refused (WAN_OUT_OF_MEMORY): how to raise the limit.
Error refused_thread(const std::system_error &failure);

/// Starts a thread, which is told to stop, and waited for, when it goes. Throws wan::Error
/// (WAN_OUT_OF_MEMORY) where the system lets this process start no more.
std::jthread start_thread(std::function<void(std::stop_token)> run);

/// Throws as start_thread() does where the calling thread's first parallel operation could not start its
/// threads: LibTorch's OpenMP ends the process then. It keeps them, so that only a thread's first call tries.
void require_compute_threads();

}  // namespace wan
