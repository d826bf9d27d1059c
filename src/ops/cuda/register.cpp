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

at::Tensor frames_to_pixels_cuda(const at::Tensor &frames, at::IntArrayRef packed_layout) {
  const WanPixelLayout layout = unpack_layout(packed_layout);
  const c10::cuda::CUDAGuard guard(frames.device());
  const at::Tensor planes = frames[0].contiguous();
  at::Tensor pixels =
      at::zeros({planes.size(1), static_cast<int64_t>(layout.size)}, planes.options().dtype(at::kByte));
  C10_CUDA_CHECK(launch_frames_to_pixels(planes.const_data_ptr<float>(), planes.size(1), layout,
                                         pixels.mutable_data_ptr<uint8_t>(),
                                         c10::cuda::getCurrentCUDAStream()));
  return pixels;
}

}  // namespace

TORCH_LIBRARY_IMPL(wan, CUDA, library) {
  library.impl("frames_to_pixels", frames_to_pixels_cuda);
}

}  // namespace wan
