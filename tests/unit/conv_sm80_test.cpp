// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The convolution kernel of all GPUs, instruction by instruction on the CPU (tests/emulation), against the
// CPU's own convolutions: its indices, its barriers and the order of its copies.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "emulation/emulated_conv.h"
#include "ops/conv.h"
#include "ops/packed_conv.h"

namespace wan::test {
namespace {

class ConvSm80 : public testing::Test {
 protected:
  ConvSm80() { at::manual_seed(seed_); }
  ~ConvSm80() override {
    if (HasFailure()) std::cout << "The seed was " << seed_ << "\n";
  }
  const c10::InferenceMode inference_;
  const unsigned seed_ = std::random_device()();
};

struct Case {
  ConvKind kind;
  int height, width, in, out;  // channels of an output frame
  int outputs, history;
};

std::string describe(const Case &c) {
  return "kind " + std::to_string(static_cast<int>(c.kind)) + ", " + std::to_string(c.outputs) +
         " frames of " + std::to_string(c.height) + "x" + std::to_string(c.width) + ", " +
         std::to_string(c.in) + " to " + std::to_string(c.out) + " channels, history " +
         std::to_string(c.history);
}

at::Tensor rounded(at::IntArrayRef shape, double scale = 1) {
  return (at::randn(shape) * scale).to(at::kBFloat16).to(at::kFloat);
}

struct Weights {
  ConvWeight packed, plain;
};

Weights random_weights(const Case &c) {
  const bool doubles = c.kind == ConvKind::kDoubleFrames, upsamples = c.kind == ConvKind::kUpsample2x;
  const int64_t out = doubles ? 2 * c.out : c.out, in = c.in;
  const at::Tensor bias = rounded({out});
  const double scale = 1 / std::sqrt(9.0 * static_cast<double>(in));
  if (upsamples) {
    // Sums of two and four taps are rounded again, so the plain ones are few bits.
    const at::Tensor weight = at::randint(-2, 3, {out, in, 3, 3}).to(at::kFloat) / 64;
    const ConvWeight plain = ConvWeight::upsample(weight, bias, at::kFloat);
    return {packed::pack(plain.weight.flatten(0, 1).unsqueeze(3), bias), plain};
  }
  const at::Tensor weight = doubles ? rounded({out, in, 3, 1, 1}, scale) : rounded({out, in, 3, 3, 3}, scale);
  return {packed::pack(doubles ? weight.unflatten(0, {2, -1}) : weight.unsqueeze(0), bias),
          ConvWeight::causal(weight, bias, at::kFloat)};
}

ConvResult plain_conv(const Case &c, const Frames &frames, const ConvWeight &weight,
                      const Epilogue &epilogue) {
  if (c.kind == ConvKind::kUpsample2x) return upsample_conv2d(at::stack(frames), weight, epilogue);
  if (c.kind == ConvKind::kDoubleFrames) return {double_frames_conv(frames, c.outputs, weight), {}};
  return causal_conv3d(frames, c.outputs, weight, epilogue);
}

void expect_near(const at::Tensor &out, const at::Tensor &expected, double tolerance,
                 const std::string &what) {
  ASSERT_EQ(out.sizes(), expected.sizes()) << what;
  const double error = ((out.to(at::kDouble) - expected).norm() / expected.norm()).item<double>();
  EXPECT_LE(error, tolerance) << what;
}

class Emulated {
 public:
  Emulated(const Case &c, unsigned seed) : case_(c), seed_(seed), weights_(random_weights(c)) {
    for (int i = 0; i < c.outputs + c.history; ++i) frames_.push_back(rounded({c.height, c.width, c.in}));
    for (const at::Tensor &frame : frames_) narrow_.push_back(frame.to(at::kBFloat16));
    conv_ = {c.kind,
             c.height,
             c.width,
             c.in,
             static_cast<int>(weights_.packed.bias.size(0)),
             c.outputs,
             {},
             weights_.packed.weight.const_data_ptr(),
             weights_.packed.bias.const_data_ptr<float>()};
    for (const at::Tensor &frame : narrow_) conv_.frames.push_back(frame.const_data_ptr());
  }

  void expect_colours() {
    const at::Tensor planes = at::full({3, case_.outputs, case_.height, case_.width}, NAN);
    conv_.planes = planes.mutable_data_ptr<float>();
    conv_.plane_stride = planes.stride(0);
    run();
    expect_near(planes.permute({1, 2, 3, 0}), expected({}).out, 1e-5, describe(case_) + ", colours");
  }

  /// The output takes the residual's place.
  void expect_result(bool residual, bool activated, bool keep_out) {
    const at::Tensor plain = expected({}).out;
    const at::Tensor added = rounded(plain.sizes()), gamma = at::randn({case_.out});
    Epilogue epilogue = {.keep_out = true};
    if (residual) epilogue.residual = added;
    if (activated) epilogue.next_gamma = gamma;
    const ConvResult wanted = expected(epilogue);
    at::Tensor out = residual ? added.to(at::kBFloat16) : empty(plain.sizes()), norm = empty(plain.sizes());
    if (residual) conv_.residual = out.const_data_ptr();
    if (keep_out) conv_.out = out.mutable_data_ptr();
    if (activated) {
      conv_.gamma = gamma.const_data_ptr<float>();
      conv_.activated = norm.mutable_data_ptr();
    }
    run();
    if (keep_out) expect_near(out, wanted.out, 3e-3, describe(case_));
    if (activated) expect_near(norm, wanted.activated, 4e-3, describe(case_) + ", activated");
  }

 private:
  static at::Tensor empty(at::IntArrayRef shape) { return at::full(shape, NAN, at::kBFloat16); }
  ConvResult expected(const Epilogue &epilogue) const {
    return plain_conv(case_, frames_, weights_.plain, epilogue);
  }
  void run() const { emulation::run(conv_, 3, seed_); }

  const Case case_;
  const unsigned seed_;
  const Weights weights_;
  Frames frames_, narrow_;
  emulation::EmulatedConv conv_;
};

TEST_F(ConvSm80, CausalConvolutionsAtAllEdgesAndWithAnyHistory) {
  for (const Case &c : {Case{ConvKind::kCausal3x3x3, 17, 18, 32, 96, 2, 0},
                        {ConvKind::kCausal3x3x3, 1, 1, 96, 128, 1, 1},
                        {ConvKind::kCausal3x3x3, 9, 33, 64, 192, 2, 1},
                        {ConvKind::kCausal3x3x3, 5, 16, 32, 384, 1, 2}})
    Emulated(c, seed_).expect_result(/*residual=*/false, /*activated=*/false, /*keep_out=*/true);
}

TEST_F(ConvSm80, WhatFollowsAConvolutionIsItsEpilogue) {
  for (const int channels : {96, 128, 192})
    for (const bool keep_out : {true, false})
      Emulated({ConvKind::kCausal3x3x3, 7, 19, 32, channels, 1, 2}, seed_)
          .expect_result(/*residual=*/true, /*activated=*/true, keep_out);
}

TEST_F(ConvSm80, TheThreeColoursArePlanes) {
  Emulated({ConvKind::kCausal3x3x3, 17, 21, 96, 3, 2, 1}, seed_).expect_colours();
}

TEST_F(ConvSm80, UpsamplingGivesFourPhases) {
  for (const int channels : {96, 128, 192})
    Emulated({ConvKind::kUpsample2x, 9, 17, 64, channels, 2, 0}, seed_)
        .expect_result(/*residual=*/true, /*activated=*/channels == 192, /*keep_out=*/true);
}

TEST_F(ConvSm80, FramesAreDoubled) {
  for (const auto &[channels, history] : {std::pair{96, 2}, {128, 1}, {192, 0}})
    Emulated({ConvKind::kDoubleFrames, 9, 17, channels, channels, 2, history}, seed_)
        .expect_result(/*residual=*/false, /*activated=*/false, /*keep_out=*/true);
}

}  // namespace
}  // namespace wan::test
