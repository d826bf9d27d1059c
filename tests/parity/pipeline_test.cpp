// A whole generation through the C interface against Diffusers' frames.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <iostream>

#include "common/engine.h"
#include "common/reference.h"

namespace wan::test {
namespace {

/// What make_golden.py ran.
WanGenerateOptions golden_options() {
  WanGenerateOptions options = tiny_options();
  options.steps = 8;
  options.guidance_scale = options.guidance_scale_2 = 4.0;
  return options;
}

class PipelineParity : public testing::Test {
 protected:
  const at::Tensor golden_ = Reference("tests/parity/golden.safetensors")["frames"];
};

TEST_F(PipelineParity, Float32VideoEqualsDiffusers) {
  const Model model = load_model(tiny_model(), test_device_name(), WAN_DTYPE_FLOAT32);
  const at::Tensor frames = generate_clip(model, golden_options()).view(golden_.sizes());
  const double quality = psnr(frames, golden_);
  std::cout << "float32 on " << test_device_name() << ": PSNR " << quality << " dB, largest difference "
            << (frames.to(at::kInt) - golden_.to(at::kInt)).abs().max().item<int>() << " of 255\n";
  EXPECT_GE(quality, 60.0);
}

TEST_F(PipelineParity, Bfloat16VideoIsClose) {
  const Model model = load_model(tiny_model(), test_device_name(), WAN_DTYPE_BFLOAT16);
  const at::Tensor frames = generate_clip(model, golden_options()).view(golden_.sizes());
  const double quality = psnr(frames, golden_);
  std::cout << "bfloat16 on " << test_device_name() << ": PSNR " << quality << " dB\n";
  EXPECT_GE(quality, 35.0);
}

}  // namespace
}  // namespace wan::test
