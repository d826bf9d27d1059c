// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Descriptions of tensors for Hopper's copy engine.
#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

#include "ops/cuda/hopper.cuh"

namespace wan::sm90 {

/// The driver's function, taken from the runtime, so that libcuda is not linked.
inline auto encode_tiled() {
  using Function = decltype(&cuTensorMapEncodeTiled);
  static const Function function = [] {
    void *symbol = nullptr;
    cudaDriverEntryPointQueryResult found;
    cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &found);
    return reinterpret_cast<Function>(symbol);
  }();
  return function;
}

enum class ElementType {
  kBfloat16 = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
  kByte = CU_TENSOR_MAP_DATA_TYPE_UINT8
};

/// sizes and box: the fastest dimension first, in elements; strides: bytes between the elements of the
/// dimensions after it. What lies outside is read as zero. False if it cannot be mapped.
template <size_t kRank>
bool make_tensor_map(CUtensorMap *map, const void *data, ElementType type, const cuuint64_t (&sizes)[kRank],
                     const cuuint64_t (&strides)[kRank - 1], const cuuint32_t (&box)[kRank],
                     Swizzle swizzle) {
  std::array<cuuint32_t, kRank> steps;
  steps.fill(1);
  return encode_tiled() &&
         encode_tiled()(map, static_cast<CUtensorMapDataType>(type), kRank, const_cast<void *>(data), sizes,
                        strides, box, steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE,
                        swizzle == Swizzle::k128 ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_64B,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace wan::sm90
