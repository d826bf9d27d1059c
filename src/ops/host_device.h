// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Functions that the CPU's and CUDA's kernels share.
#pragma once

#ifdef __CUDACC__
#define WAN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define WAN_HOST_DEVICE inline
#endif
