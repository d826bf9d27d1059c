// SPDX-License-Identifier: LGPL-2.1-or-later
#include "torch_error.h"

#include <c10/util/Exception.h>

#include <cstring>
#include <new>
#include <system_error>

#include "threads.h"

namespace wan {

namespace {

/// LibTorch's CPU allocator has no exception type of its own, nor have the driver and CUDA's libraries where
/// they have no memory for themselves.
bool is_host_out_of_memory(const c10::Error &failure) {
  return std::strstr(failure.what(), "DefaultCPUAllocator") != nullptr;
}
bool is_gpu_out_of_memory(const c10::Error &failure) {
  if (dynamic_cast<const c10::OutOfMemoryError *>(&failure)) return true;
  for (const char *text :
       {"CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"})
    if (std::strstr(failure.what(), text)) return true;
  return false;
}

}  // namespace

Error current_error(const std::function<std::string()> &advice) {
  try {
    throw;
  } catch (const Error &failure) {
    return failure;
  } catch (const c10::Error &failure) {
    const std::string sentence = first_line(failure.what_without_backtrace());
    if (is_gpu_out_of_memory(failure))
      return {WAN_OUT_OF_MEMORY, "The GPU has too little memory: " + advice() + " (" + sentence + ")"};
    return {is_host_out_of_memory(failure) ? WAN_OUT_OF_MEMORY : WAN_INTERNAL, sentence};
  } catch (const std::bad_alloc &) {
    throw;
  } catch (const std::system_error &failure) {  // LibTorch starts threads, too
    const bool refused = failure.code() == std::errc::resource_unavailable_try_again;
    return refused ? refused_thread(failure) : Error(WAN_INTERNAL, first_line(failure.what()));
  } catch (const std::exception &failure) {
    return {WAN_INTERNAL, first_line(failure.what())};
  }
}

}  // namespace wan
