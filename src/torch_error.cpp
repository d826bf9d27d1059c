// SPDX-License-Identifier: LGPL-2.1-or-later
#include "torch_error.h"

#include <cstring>

namespace wan {

// LibTorch's CPU allocator has no exception type of its own, nor have the driver and CUDA's libraries where
// they have no memory for themselves.

bool is_gpu_out_of_memory(const c10::Error &failure) {
  if (dynamic_cast<const c10::OutOfMemoryError *>(&failure)) return true;
  for (const char *text :
       {"CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"})
    if (std::strstr(failure.what(), text)) return true;
  return false;
}

bool is_host_out_of_memory(const c10::Error &failure) {
  return std::strstr(failure.what(), "DefaultCPUAllocator") != nullptr;
}

}  // namespace wan
