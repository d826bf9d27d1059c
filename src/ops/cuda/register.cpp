// Registers the CUDA kernels with LibTorch's dispatcher: the code of libwan-engine-cuda.so that runs when it
// is loaded.
#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include "ops/cuda/frames_to_pixels.h"
#include "ops/pixel_layout.h"

namespace wan {

namespace {

void frames_to_pixels_cuda(const at::Tensor &frames, at::IntArrayRef packed_layout, const at::Tensor &out) {
  const WanPixelLayout layout = unpack_layout(packed_layout);
  check_pixels(out, frames, layout);
  const c10::cuda::CUDAGuard guard(frames.device());
  const at::Tensor planes = frames[0].contiguous();
  C10_CUDA_CHECK(launch_frames_to_pixels(planes.const_data_ptr<float>(), planes.size(1), layout,
                                         out.mutable_data_ptr<uint8_t>(), c10::cuda::getCurrentCUDAStream()));
}

}  // namespace

TORCH_LIBRARY_IMPL(wan, CUDA, library) {
  library.impl("frames_to_pixels", frames_to_pixels_cuda);
}

}  // namespace wan
