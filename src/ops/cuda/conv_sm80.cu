// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/cuda/conv_sm80.cuh"

#include <algorithm>

namespace wan::sm80 {

namespace {

template <int kN, int kTaps>
__global__ void __launch_bounds__(Layout<kN, kTaps>::kThreads, 1)
    conv_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(128) char memory[];
  convolve<kN, kTaps>(params, reinterpret_cast<typename Layout<kN, kTaps>::Shared &>(memory));
}

struct Launch {
  cudaStream_t stream;

  template <int kN, int kTaps>
  cudaError_t operator()(const Params &params) const {
    constexpr int kThreads = Layout<kN, kTaps>::kThreads;
    constexpr int kBytes = sizeof(typename Layout<kN, kTaps>::Shared);
    const auto kernel = conv_kernel<kN, kTaps>;
    const cudaError_t ready =  // each time, for it holds for one device
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (ready != cudaSuccess) return ready;
    int blocks = 0;
    const cudaError_t counted =
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, kThreads, kBytes);
    if (counted != cudaSuccess) return counted;
    kernel<<<std::min(params.num_tiles, blocks * multiprocessors()), kThreads, kBytes, stream>>>(params);
    return cudaGetLastError();
  }
};

}  // namespace

cudaError_t launch_conv(const Conv &conv, cudaStream_t stream) {
  return with_tiles(conv, Launch{stream});
}

}  // namespace wan::sm80
