// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The GPU's timeline from CUPTI's activity records.
#pragma once

#include "trace.h"

namespace wan::bench {

/// One at a time. Throws wan::Error (WAN_DEVICE) where CUPTI is absent or refuses.
std::unique_ptr<GpuTrace> make_cuda_trace(bool chunks);

}  // namespace wan::bench
