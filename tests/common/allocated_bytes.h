// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What a process must not take more of the longer it runs.
#pragma once

#include <malloc.h>

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
// GCC has it, but not the header that declares it, sanitizer/allocator_interface.h.
extern "C" size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace wan::test {

/// Bytes of this process's heap that are in use. Resident bytes also count what is freed and kept: by malloc
/// for the next time, by AddressSanitizer to find who still uses it.
inline size_t allocated_bytes() {
#ifdef __SANITIZE_ADDRESS__
  return __sanitizer_get_current_allocated_bytes();
#else
  const struct mallinfo2 heap = mallinfo2();
  return heap.uordblks + heap.hblkhd;
#endif
}

}  // namespace wan::test
