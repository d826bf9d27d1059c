// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The operations of the decoder (ops/conv.h, rms_norm.h, attention.h) and of the transformer
// (ops/modulation.h, rotary_norm.h) against plain ATen, over odd sizes, in float32 and bfloat16.
#include "ops/conv.h"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <optional>
#include <random>

#include "common/tiny_model.h"
#include "device.h"
#include "ops/attention.h"
#include "ops/modulation.h"
#include "ops/rms_norm.h"
#include "ops/rotary_norm.h"

namespace wan::test {
namespace {

struct Size {
  int64_t height, width, in, out;
};

constexpr Size kSizes[] = {{1, 1, 8, 8},      {1, 3, 5, 4},      {2, 1, 16, 48},    {5, 7, 8, 16},
                           {6, 10, 16, 3},    {9, 17, 32, 32},   {13, 33, 96, 96},  {11, 19, 96, 3},
                           {7, 21, 48, 24},   {16, 40, 96, 192}, {3, 5, 256, 384},  {1, 1, 64, 64},
                           {2, 1, 68, 64},    {21, 6, 64, 100},  {151, 39, 64, 64}, {19, 33, 192, 96},
                           {9, 23, 384, 384}, {8, 16, 128, 128}};

/// Normally distributed, rounded to dtype, on the tests' device.
at::Tensor random(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::randn(shape).to(dtype).to(test_device());
}

/// The exact value of what the operation was given.
at::Tensor exact(const at::Tensor &x) {
  return x.to(at::kCPU, at::kDouble);
}

class Ops : public testing::TestWithParam<at::ScalarType> {
 protected:
  Ops() {
    at::globalContext().setAllowTF32CuDNN(false);  // by default it rounds float32
    // New memory is filled with NaN, which shows what an operation does not write.
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
    test_device();  // before LibTorch asks itself whether there is CUDA
    at::manual_seed(seed_);
  }
  ~Ops() override {
    at::globalContext().setDeterministicAlgorithms(false, false);
    if (HasFailure()) std::cout << "The seed was " << seed_ << "\n";
  }

  at::Tensor random(at::IntArrayRef shape) const { return test::random(shape, GetParam()); }
  /// Weights that keep an activation's size, float32 as a checkpoint's.
  at::Tensor random_weight(at::IntArrayRef shape) const {
    const double fan_in = static_cast<double>(c10::multiply_integers(shape) / shape[0]);
    return test::random(shape, at::kFloat).div_(std::sqrt(fan_in)).to(GetParam()).to(at::kFloat);
  }

  /// Rounding each result once, and in between where the reference implementation stores it. magnitude: what
  /// the error is measured by, the reference's norm where it is not given.
  void expect_near(const at::Tensor &out, const at::Tensor &reference, const std::string &what,
                   std::optional<double> magnitude = std::nullopt) const {
    ASSERT_EQ(out.sizes(), reference.sizes()) << what;
    EXPECT_TRUE(out.is_contiguous()) << what;
    // Of a few values the roundings do not average out.
    const double narrow = out.numel() < 128 ? 1.5e-2 : 6e-3;
    const double tolerance = out.scalar_type() == at::kBFloat16 ? narrow : 1e-5;
    const double error = (exact(out) - reference).norm().item<double>();
    EXPECT_LE(error, tolerance * magnitude.value_or(reference.norm().item<double>())) << what;
  }

  void expect_result(const ConvResult &result, const at::Tensor &reference, const Epilogue &epilogue,
                     const std::string &what) const {
    at::Tensor sum = reference;
    if (epilogue.residual.defined()) sum = sum + exact(epilogue.residual);
    // Where the terms of the convolution cancel each other, or the residual cancels it, their errors remain.
    at::Tensor length = reference.norm(2, {-1}, true);
    length = at::maximum(length, length.square().mean().sqrt());
    if (epilogue.residual.defined()) length = length + exact(epilogue.residual).norm(2, {-1}, true);
    EXPECT_EQ(result.out.defined(), epilogue.keep_out) << what;
    EXPECT_EQ(result.activated.defined(), epilogue.next_gamma.defined()) << what;
    if (result.out.defined()) expect_near(result.out, sum, what, length.norm().item<double>());
    if (!result.activated.defined()) return;
    EXPECT_EQ(result.activated.scalar_type(), GetParam());
    const at::Tensor activated = normalized(sum, epilogue.next_gamma, true);
    const at::Tensor amplified = activated * length / sum.norm(2, {-1}, true);
    expect_near(result.activated, activated, what + ", activated", amplified.norm().item<double>());
  }

  static at::Tensor normalized(const at::Tensor &x, const at::Tensor &gamma, bool silu) {
    const at::Tensor wide = exact(x);
    const at::Tensor length = wide.norm(2, {-1}, true).clamp_min(1e-12);
    const at::Tensor y = wide / length * std::sqrt(static_cast<double>(x.size(-1))) * exact(gamma);
    return silu ? at::silu(y) : y;
  }

  /// The residual may be overwritten, so each call gets its own.
  static Epilogue fresh(Epilogue epilogue) {
    if (epilogue.residual.defined()) epilogue.residual = epilogue.residual.clone();
    return epilogue;
  }

  /// With and without each part.
  std::vector<Epilogue> epilogues(at::IntArrayRef shape) const {
    const at::Tensor gamma = test::random({shape.back()}, at::kFloat), residual = random(shape);
    return {{},
            {.residual = residual},
            {.next_gamma = gamma},
            {.residual = residual, .next_gamma = gamma},
            {.residual = residual, .next_gamma = gamma, .keep_out = false}};
  }

  const c10::InferenceMode inference_;
  const uint32_t seed_ = std::random_device()();
};

/// The reference, in double precision on the CPU, takes long.
bool is_large(const Size &size) {
  return size.height * size.width * size.in * size.out > 4'000'000;
}

std::string describe(const Size &size, int64_t frames, size_t history) {
  return std::to_string(frames) + " frames of " + std::to_string(size.height) + "x" +
         std::to_string(size.width) + ", " + std::to_string(size.in) + " to " + std::to_string(size.out) +
         " channels, history " + std::to_string(history);
}

/// The last `outputs` frames, zeros in front. weight: [Cout, Cin, kt, k, k]. Returns [T, H, W, Cout].
at::Tensor plain_conv3d(const Frames &frames, int64_t outputs, const at::Tensor &weight,
                        const at::Tensor &bias) {
  at::Tensor x = exact(at::stack(frames)).permute({3, 0, 1, 2}).unsqueeze(0);
  x = at::constant_pad_nd(x, {0, 0, 0, 0, weight.size(2) - 1, 0});
  const at::Tensor out = at::conv3d(x, exact(weight), exact(bias), 1,
                                    at::IntArrayRef{0, weight.size(3) / 2, weight.size(4) / 2});
  return out[0].permute({1, 2, 3, 0}).narrow(0, out.size(2) - outputs, outputs);
}

TEST_P(Ops, CausalConv3d) {
  for (const Size &size : kSizes) {
    const at::Tensor weight = random_weight({size.out, size.in, 3, 3, 3});
    const at::Tensor bias = random_weight({size.out});
    const ConvWeight packed = ConvWeight::causal(weight, bias, GetParam());
    for (const int64_t outputs : {1, 2, 4})
      for (const size_t history : {0u, 1u, 2u}) {
        if (is_large(size) && (outputs != 2 || history == 0)) continue;
        Frames frames;
        while (frames.size() < static_cast<size_t>(outputs) + history)
          frames.push_back(random({size.height, size.width, size.in}));
        const at::Tensor reference = plain_conv3d(frames, outputs, weight, bias);
        for (const Epilogue &epilogue : epilogues(reference.sizes()))
          expect_result(causal_conv3d(frames, outputs, packed, fresh(epilogue)), reference, epilogue,
                        describe(size, outputs, history));
      }
  }
}

TEST_P(Ops, CausalConv3dGivesFloat32WhereAsked) {
  const at::Tensor weight = random_weight({3, 96, 3, 3, 3}), bias = random_weight({3});
  const Frames frames = {random({5, 9, 96}), random({5, 9, 96}), random({5, 9, 96})};
  const at::Tensor out =
      causal_conv3d(frames, 2, ConvWeight::causal(weight, bias, GetParam()), {.float32 = true}).out;
  EXPECT_EQ(out.scalar_type(), at::kFloat);
  EXPECT_LE(relative_error(out, plain_conv3d(frames, 2, weight, bias)), 2e-6);
  const ConvWeight many =
      ConvWeight::causal(random_weight({96, 96, 3, 3, 3}), random_weight({96}), GetParam());
  EXPECT_EQ(causal_conv3d(frames, 2, many, {.float32 = true}).out.scalar_type(), at::kFloat);
}

TEST_P(Ops, CausalConv3dDoesNotDependOnHowFramesComeTogether) {
  const ConvWeight weight =
      ConvWeight::causal(random_weight({32, 16, 3, 3, 3}), random_weight({32}), GetParam());
  Frames frames;
  for (int t = 0; t < 4; ++t) frames.push_back(random({7, 9, 16}));
  const at::Tensor whole = causal_conv3d(frames, 4, weight, {}).out;
  for (size_t t = 0; t < 4; ++t) {
    const Frames seen(frames.begin() + (t < 2 ? 0 : static_cast<int64_t>(t) - 2),
                      frames.begin() + static_cast<int64_t>(t) + 1);
    EXPECT_TRUE(at::equal(causal_conv3d(seen, 1, weight, {}).out[0], whole[static_cast<int64_t>(t)])) << t;
  }
}

TEST_P(Ops, UpsampleConv2d) {
  for (const Size &size : kSizes) {
    const at::Tensor weight = random_weight({size.out, size.in, 3, 3}), bias = random_weight({size.out});
    const ConvWeight packed = ConvWeight::upsample(weight, bias, GetParam());
    for (const int64_t count : {1, 2, 4}) {
      if (is_large(size) && count != 2) continue;
      const at::Tensor x = random({count, size.height, size.width, size.in});
      const at::Tensor doubled =
          at::upsample_nearest2d(exact(x).permute({0, 3, 1, 2}), {2 * size.height, 2 * size.width});
      const at::Tensor reference =
          at::conv2d(doubled, exact(weight), exact(bias), 1, 1).permute({0, 2, 3, 1});
      for (const Epilogue &epilogue : epilogues(reference.sizes()))
        expect_result(upsample_conv2d(x, packed, fresh(epilogue)), reference, epilogue,
                      describe(size, count, 0));
    }
  }
}

TEST_P(Ops, DoubleFramesConv) {
  for (const Size &size : kSizes) {
    const at::Tensor weight = random_weight({2 * size.in, size.in, 3, 1, 1});
    const at::Tensor bias = random_weight({2 * size.in});
    for (const int64_t inputs : {1, 2})
      for (const size_t history : {0u, 1u, 2u}) {
        Frames frames;
        while (frames.size() < static_cast<size_t>(inputs) + history)
          frames.push_back(random({size.height, size.width, size.in}));
        const at::Tensor pairs = plain_conv3d(frames, inputs, weight, bias);
        const at::Tensor reference = pairs.unflatten(3, {2, size.in}).permute({0, 3, 1, 2, 4}).flatten(0, 1);
        expect_near(double_frames_conv(frames, inputs, ConvWeight::causal(weight, bias, GetParam())),
                    reference, describe(size, inputs, history));
      }
  }
}

TEST_P(Ops, DownsampleConv2d) {
  for (const Size &size : kSizes) {
    const at::Tensor weight = random_weight({size.out, size.in, 3, 3}), bias = random_weight({size.out});
    const ConvWeight packed = ConvWeight::downsample(weight, bias, GetParam());
    for (const int64_t count : {1, 2}) {
      if (is_large(size) && count != 2) continue;
      const at::Tensor x = random({count, 2 * size.height, 2 * size.width, size.in});
      const at::Tensor padded = at::constant_pad_nd(exact(x).permute({0, 3, 1, 2}), {0, 1, 0, 1});
      const at::Tensor reference = at::conv2d(padded, exact(weight), exact(bias), 2).permute({0, 2, 3, 1});
      for (const Epilogue &epilogue : epilogues(reference.sizes()))
        expect_result(downsample_conv2d(x, packed, fresh(epilogue)), reference, epilogue,
                      describe(size, count, 0));
    }
  }
}

TEST_P(Ops, HalveFramesConv) {
  for (const Size &size : kSizes) {
    const at::Tensor weight = random_weight({size.out, size.in, 3, 1, 1}), bias = random_weight({size.out});
    const ConvWeight packed = ConvWeight::halve_frames(weight, bias, GetParam());
    Frames frames;
    while (frames.size() < 3) frames.push_back(random({size.height, size.width, size.in}));
    const at::Tensor reference = plain_conv3d(frames, 1, weight, bias);
    for (const Epilogue &epilogue : epilogues(reference.sizes()))
      expect_result(halve_frames_conv(frames, packed, fresh(epilogue)), reference, epilogue,
                    describe(size, 1, 2));
  }
}

TEST_P(Ops, RmsNorm) {
  for (const Size &size : kSizes)
    for (const bool silu : {false, true}) {
      at::Tensor x = random({2, size.height, size.width, size.in});
      x[0][0][0].zero_();
      const at::Tensor gamma = test::random({size.in}, at::kFloat);
      expect_near(rms_norm(x, gamma, silu), normalized(x, gamma, silu), describe(size, 2, 0));
    }
}

TEST_P(Ops, WideHeadAttention) {
  for (const auto &[tokens, dim] :
       {std::pair<int64_t, int64_t>{1, 384}, {77, 32}, {1500, 384}, {9000, 384}}) {
    const at::Tensor qkv = random({2, 1, tokens, 3 * dim});
    const std::vector<at::Tensor> parts = qkv.chunk(3, -1);
    const at::Tensor out = wide_head_attention(parts[0], parts[1], parts[2]);
    const at::Tensor few = exact(parts[0]).narrow(2, tokens / 2, 1);  // one query stands for all
    const at::Tensor scores = at::matmul(few, exact(parts[1]).transpose(2, 3)) / std::sqrt(dim);
    expect_near(out.narrow(2, tokens / 2, 1).contiguous(),
                at::matmul(at::softmax(scores, -1), exact(parts[2])), std::to_string(tokens));
  }
}

/// A few queries stand for all.
at::Tensor plain_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, int64_t step) {
  const auto heads_first = [](const at::Tensor &x) { return exact(x).transpose(1, 2); };
  const at::Tensor queries = heads_first(q.slice(1, 0, q.size(1), step));
  const at::Tensor scores = at::matmul(queries, heads_first(k).transpose(2, 3)) / std::sqrt(q.size(3));
  return at::matmul(at::softmax(scores, -1), heads_first(v)).transpose(1, 2);
}

/// With few keys and many, which another kernel takes; with whole tiles of them and a rest; heads of all
/// queries, keys and values side by side, as one projection would give them.
TEST_P(Ops, Attention) {
  for (const auto &[queries, keys, heads, head_dim] : {std::array<int64_t, 4>{1, 1, 1, 128},
                                                       {130, 512, 3, 128},
                                                       {300, 1056, 2, 128},
                                                       {257, 1025, 2, 128},
                                                       {40, 3000, 2, 128},
                                                       {64, 1500, 2, 64}})
    for (const int64_t batch : {1, 2}) {
      const at::Tensor q = random({batch, queries, heads, head_dim});
      const std::vector<at::Tensor> kv = random({batch, keys, 2 * heads, head_dim}).chunk(2, 2);
      const at::Tensor out = attention(q, kv[0], kv[1]);
      constexpr int64_t kStep = 13;
      expect_near(out.slice(1, 0, queries, kStep).contiguous(), plain_attention(q, kv[0], kv[1], kStep),
                  std::to_string(queries) + " queries, " + std::to_string(keys) + " keys");
    }
}

double relative_error(const at::Tensor &out, const at::Tensor &reference) {
  return ((exact(out) - exact(reference)).norm() / exact(reference).norm()).item<double>();
}

at::Tensor dequantized(const Activations &x) {
  return exact(x.values) * exact(x.scale).view({x.values.size(0), x.values.size(1), 1});
}

TEST_P(Ops, QuantizeRows) {
  for (const bool gelu : {false, true})
    for (const auto &[tokens, channels] :
         {std::pair<int64_t, int64_t>{1, 8}, {3, 5}, {33, 256}, {7, 5120}, {5, 13824}, {2, 14344}}) {
      const std::string what = std::to_string(channels) + (gelu ? " channels, GELU" : " channels");
      const at::Tensor x = random({2, tokens, channels}), bias = random({channels});
      at::Tensor expected = x + bias;
      if (gelu) expected = at::gelu(expected, "tanh");
      const Activations out = quantize_rows({x, bias}, gelu);
      EXPECT_EQ(out.values.scalar_type(), at::kFloat8_e4m3fn);
      EXPECT_EQ(out.scale.sizes(), (std::vector<int64_t>{2 * tokens, 1}));
      // Half of the last of three places, and the smallest numbers' distance; the GPU's GELU may be rounded
      // otherwise.
      const at::Tensor bound = exact(expected).abs() / 16 + exact(expected).abs().amax(-1, true) / 448 / 512;
      EXPECT_TRUE(((dequantized(out) - exact(expected)).abs() <= bound * 1.08).all().item<bool>()) << what;
      EXPECT_EQ(exact(out.values).abs().amax(-1).min().item<double>(), 448) << what;
    }
}

TEST_P(Ops, QuantizeRowsOfZeros) {
  const Activations out = quantize_rows(at::zeros({1, 2, 256}, at::dtype(GetParam()).device(test_device())));
  EXPECT_EQ(dequantized(out).abs().max().item<double>(), 0);
}

/// On the CPU by reference; of the GPUs some have it.
class Fp8 : public testing::Test {
 protected:
  void SetUp() override {
    if (test_device().is_cuda() && compute_capability(test_device()) < 89)
      GTEST_SKIP() << "needs a GPU with FP8";
  }
  const c10::InferenceMode inference_;
};

at::Tensor random_bfloat16(at::IntArrayRef shape) {
  return test::random(shape, at::kBFloat16);
}

TEST_F(Fp8, Product) {
  const at::Tensor x = random_bfloat16({2, 33, 256}), weight = random_bfloat16({512, 256});
  const Activations rows = quantize_rows(x);
  const QuantizedWeight quantized = quantize_weight(weight);
  const at::Tensor product = quantized_product(rows, quantized.weight, quantized.scale, at::kBFloat16);
  const at::Tensor matrix = exact(quantized.weight) * exact(quantized.scale).unsqueeze(-1);
  EXPECT_LT(relative_error(product, at::matmul(dequantized(rows), matrix.t())), 5e-3);
  EXPECT_LT(relative_error(product, at::matmul(exact(x), exact(weight).t())), 5e-2);
}

TEST_F(Fp8, NormsQuantizeAsRowsDo) {
  const at::Tensor x = random_bfloat16({2, 33, 256});
  const at::Tensor scale = test::random({1, 1, 256}, at::kFloat),
                   shift = test::random({1, 1, 256}, at::kFloat);
  const Activations quantized = modulated_norm(x, shift, scale, 1e-6, /*quantizes=*/true);
  const Activations expected = quantize_rows(modulated_norm(x, shift, scale, 1e-6).values);
  EXPECT_TRUE(at::equal(exact(quantized.values), exact(expected.values)));
  EXPECT_TRUE(at::equal(quantized.scale, expected.scale));
}

/// Values whose mean is not zero show whether the sums of many keys keep their bits.
TEST_F(Fp8, Attention) {
  if (!has_fp8_attention(test_device(), 3000, 128)) GTEST_SKIP() << "needs a Hopper GPU";
  for (const auto &[queries, keys] : {std::pair<int64_t, int64_t>{300, 1056}, {1000, 1111}, {40, 30000}})
    for (const double mean : {0.0, 1.0}) {
      const at::Tensor q = random_bfloat16({2, queries, 3, 128}), k = random_bfloat16({2, keys, 3, 128});
      const at::Tensor v = random_bfloat16({2, keys, 3, 128}), bias = random_bfloat16({3 * 128}) + mean;
      const at::Tensor out = fp8_attention(q.to(at::kFloat8_e4m3fn), k.to(at::kFloat8_e4m3fn), v, bias);
      const at::Tensor plain = plain_attention(q, k, v + bias.view({3, 128}), 13);
      EXPECT_LT(relative_error(out.slice(1, 0, queries, 13), plain), mean == 0 ? 0.06 : 0.02)
          << keys << " keys";
    }
}

constexpr double kEps = 1e-6;

/// The kernel goes from the last key to the first, and its weights are relative to a number that it raises on
/// the way: here by some forty powers of 2, in steps large and small, and in some rows alone.
TEST_F(Fp8, AttentionToEverLargerScores) {
  if (!has_fp8_attention(test_device(), 3000, 128)) GTEST_SKIP() << "needs a Hopper GPU";
  const int64_t keys = 5000;
  const at::Tensor growth = at::linspace(8, 0, keys).view({1, keys, 1, 1}).to(test_device());
  const at::Tensor k = (random_bfloat16({1, keys, 2, 128}) * growth).to(at::kFloat8_e4m3fn);
  const at::Tensor q = random_bfloat16({1, 300, 2, 128}).to(at::kFloat8_e4m3fn);
  const at::Tensor v = random_bfloat16({1, keys, 2, 128});
  const at::Tensor out = fp8_attention(q, k, v, {});
  EXPECT_LT(relative_error(out.slice(1, 0, 300, 13), plain_attention(q, k, v, 13)), 0.05);
}

/// Most of a trained model's keys is the same in all of them. Rounded with the rest, it costs an error of
/// 0.1.
TEST_F(Fp8, AttentionDoesNotRoundWhatAllKeysHaveInCommon) {
  if (!has_fp8_attention(test_device(), 3000, 128)) GTEST_SKIP() << "needs a Hopper GPU";
  const int64_t tokens = 2100, heads = 2;
  const at::Tensor x = random_bfloat16({1, tokens, heads * 128}) + 6 * random_bfloat16({heads * 128});
  const at::Tensor weight = at::full({heads * 128}, 4, x.options());
  const at::Tensor angle = at::zeros({tokens, 1, 64}, x.options().dtype(at::kFloat));
  const at::Tensor cos = angle.cos(), sin = angle.sin();
  const at::Tensor k = rotary_rms_norm(x, weight, cos, sin, kEps);
  const at::Tensor k8 =
      fp8_rotary_rms_norm(x, weight, cos, sin, kEps, rotary_norm_center(x, weight, cos, sin, kEps));
  const at::Tensor q = random_bfloat16(k.sizes()), v = random_bfloat16(k.sizes());
  const at::Tensor out = fp8_attention(q.to(at::kFloat8_e4m3fn), k8, v, {});
  EXPECT_LT(relative_error(out.slice(1, 0, tokens, 13), plain_attention(q, k, v, 13)), 0.06);
}

struct Tokens {
  int64_t batch, tokens, channels;
};

/// With and without whole vectors of 16 bytes; more channels than the kernels take, too.
constexpr Tokens kTokens[] = {{1, 1, 8},     {2, 3, 5},     {1, 7, 12},   {3, 2, 72},     {2, 33, 256},
                              {2, 5, 1032},  {1, 9, 1536},  {2, 3, 3064}, {1, 300, 3072}, {2, 2, 4096},
                              {2, 17, 5112}, {1, 65, 5120}, {1, 3, 5128}};

std::string describe(const Tokens &size) {
  return std::to_string(size.batch) + " x " + std::to_string(size.tokens) + " tokens of " +
         std::to_string(size.channels);
}

/// Away from zero, so that the mean matters.
at::Tensor random_tokens(const Tokens &size, at::ScalarType dtype) {
  return (at::randn({size.batch, size.tokens, size.channels}) * 2 + 3).to(dtype).to(test_device());
}

/// The rows of a block's modulation, one for all or one for each of the batch: [1 or B, 1, D].
std::vector<at::Tensor> random_rows(const Tokens &size, bool for_each) {
  return random({for_each ? size.batch : 1, 3, size.channels}, at::kFloat).chunk(3, 1);
}

/// The roundings lie where the reference, which the CPU runs, has them: sums in another order move a bfloat16
/// result to its neighbour rarely, and a rounding more or less would do so often.
void expect_same_roundings(const at::Tensor &out, const at::Tensor &on_cpu, const std::string &what) {
  if (out.scalar_type() != at::kBFloat16) return;
  const int64_t unequal = at::ne(out.to(at::kCPU), on_cpu).sum().item<int64_t>();
  EXPECT_LE(unequal, 2 + out.numel() / 200) << what;
}

at::Tensor plain_layer_norm(const at::Tensor &x) {
  return at::layer_norm(exact(x), {x.size(-1)}, {}, {}, kEps);
}

TEST_P(Ops, ModulatedNorm) {
  for (const Tokens &size : kTokens)
    for (const bool for_each : {false, true}) {
      const at::Tensor x = random_tokens(size, GetParam());
      const std::vector<at::Tensor> rows = random_rows(size, for_each);
      const at::Tensor out = modulated_norm(x, rows[0], rows[2], kEps).values;
      expect_near(out, plain_layer_norm(x) * (1 + exact(rows[2])) + exact(rows[0]), describe(size));
      expect_same_roundings(out, modulated_norm(x.cpu(), rows[0].cpu(), rows[2].cpu(), kEps).values,
                            describe(size));
    }
}

TEST_P(Ops, AffineNorm) {
  for (const Tokens &size : kTokens) {
    const at::Tensor x = random_tokens(size, GetParam());
    const at::Tensor weight = test::random({size.channels}, at::kFloat);
    const at::Tensor bias = test::random({size.channels}, at::kFloat);
    const at::Tensor out = affine_norm(x, weight, bias, kEps).values;
    expect_near(out, plain_layer_norm(x) * exact(weight) + exact(bias), describe(size));
    expect_same_roundings(out, affine_norm(x.cpu(), weight.cpu(), bias.cpu(), kEps).values, describe(size));
  }
}

TEST_P(Ops, NormOfEqualValuesIsTheShift) {
  const at::Tensor x = at::full({1, 2, 72}, 3.0, at::dtype(GetParam()).device(test_device()));
  const at::Tensor shift = test::random({1, 1, 72}, at::kFloat), scale = test::random({1, 1, 72}, at::kFloat);
  EXPECT_TRUE(at::equal(modulated_norm(x, shift, scale, kEps).values, shift.to(GetParam()).expand_as(x)));
}

TEST_P(Ops, GatedResidual) {
  for (const Tokens &size : kTokens)
    for (const bool for_each : {false, true}) {
      const at::Tensor x = random_tokens(size, GetParam()), branch = random_tokens(size, GetParam());
      const at::Tensor gate = random_rows(size, for_each)[1];
      const at::Tensor out = gated_residual(x, branch, gate);
      expect_near(out, exact(x) + exact(branch) * exact(gate), describe(size),
                  (exact(x).abs() + (exact(branch) * exact(gate)).abs()).norm().item<double>());
      EXPECT_TRUE(at::equal(out.cpu(), gated_residual(x.cpu(), branch.cpu(), gate.cpu()))) << describe(size);
    }
}

TEST_P(Ops, SegmentsOfTokensHaveRowsOfTheirOwn) {
  for (const std::vector<int64_t> &starts : {std::vector<int64_t>{0, 1}, {0, 7, 8, 18}}) {
    const auto segments = static_cast<int64_t>(starts.size());
    for (const int64_t batch : {1, 2}) {
      const at::Tensor x = random_tokens({2, 19, 128}, GetParam()),
                       branch = random_tokens({2, 19, 128}, GetParam());
      const std::vector<at::Tensor> rows = test::random({batch, segments, 3, 128}, at::kFloat).unbind(2);
      const Activations normed = modulated_norm(x, rows[0], rows[1], kEps, /*quantizes=*/false, starts);
      const at::Tensor sum = gated_residual(x, branch, rows[2], starts);
      for (int64_t i = 0; i < segments; ++i) {
        const int64_t first = starts[static_cast<size_t>(i)];
        const int64_t count = (i + 1 < segments ? starts[static_cast<size_t>(i) + 1] : 19) - first;
        const auto part = [&](const at::Tensor &tokens) {
          return tokens.narrow(1, first, count).contiguous();
        };
        const auto row = [&](size_t k) { return rows[k].narrow(1, i, 1); };
        EXPECT_TRUE(at::equal(part(normed.values), modulated_norm(part(x), row(0), row(1), kEps).values))
            << i;
        EXPECT_TRUE(at::equal(part(sum), gated_residual(part(x), part(branch), row(2)))) << i;
      }
    }
  }
}

TEST_P(Ops, ResidualOfAProductWithoutItsBias) {
  for (const Tokens &size : kTokens) {
    const at::Tensor x = random_tokens(size, GetParam()), branch = random_tokens(size, GetParam());
    const at::Tensor bias = random({size.channels}), gate = random_rows(size, true)[1];
    const at::Tensor sum = exact(branch) + exact(bias);
    const double scale = (exact(x).abs() + sum.abs() * (1 + exact(gate).abs())).norm().item<double>();
    expect_near(residual(x, {branch, bias}), exact(x) + sum, describe(size), scale);
    expect_near(gated_residual(x, {branch, bias}, gate), exact(x) + sum * exact(gate), describe(size), scale);
  }
}

TEST_P(Ops, HeadsRmsNorm) {
  for (const Tokens &size : kTokens) {
    const at::Tensor x = random_tokens(size, GetParam()), weight = random({size.channels});
    const at::Tensor bias = random({size.channels});
    const at::Tensor sum = exact(x + bias);  // rounded, as by an addition of its own
    const at::Tensor normed = sum * at::rsqrt(sum.square().mean({-1}, true) + kEps) * exact(weight);
    expect_near(heads_rms_norm({x, bias}, weight, kEps), normed, describe(size));
  }
}

TEST_P(Ops, GeluLinear) {
  const at::Tensor x = random({2, 33, 256}), weight = random({512, 256}) / 16, bias = random({512});
  const at::Tensor product = at::matmul(exact(x), exact(weight).t()) + exact(bias);
  expect_near(gelu_linear(x, weight.to(GetParam()), bias), at::gelu(product, "tanh"), "GELU");
}

TEST_P(Ops, TokensThatAreNotContiguous) {
  const at::Tensor x = random_tokens({2, 72, 40}, GetParam()).transpose(1, 2);
  const std::vector<at::Tensor> rows = random_rows({2, 40, 72}, true);
  EXPECT_TRUE(at::allclose(exact(modulated_norm(x, rows[0], rows[2], kEps).values),
                           exact(modulated_norm(x.contiguous(), rows[0], rows[2], kEps).values), 1e-2, 1e-2));
  EXPECT_TRUE(
      at::equal(gated_residual(x, x, rows[1]), gated_residual(x.contiguous(), x.contiguous(), rows[1])));
}

/// By complex numbers.
at::Tensor plain_rotation(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin) {
  const at::Tensor pairs = at::view_as_complex(x.unflatten(-1, {-1, 2}).contiguous());
  return at::view_as_real(pairs * at::complex(exact(cos), exact(sin))).flatten(-2);
}

TEST_P(Ops, RotaryRmsNorm) {
  for (const auto &[heads, head_dim] : {std::pair<int64_t, int64_t>{1, 2},
                                        {2, 6},
                                        {2, 12},
                                        {3, 8},
                                        {2, 128},
                                        {5, 72},
                                        {12, 128},
                                        {24, 128},
                                        {40, 128},
                                        {41, 128}})
    for (const int64_t batch : {1, 2}) {
      const Tokens size{batch, 19, heads * head_dim};
      const at::Tensor x = random_tokens(size, GetParam()), weight = random({size.channels});
      const at::Tensor angle = at::rand({size.tokens, 1, head_dim / 2}) * 7;
      const at::Tensor cos = angle.cos().to(test_device()), sin = angle.sin().to(test_device());
      const at::Tensor out = rotary_rms_norm(x, weight, cos, sin, kEps);
      const at::Tensor mean_square = exact(x).square().mean({-1}, true);
      const at::Tensor normed = exact(x) * at::rsqrt(mean_square + kEps) * exact(weight);
      expect_near(out, plain_rotation(normed.unflatten(-1, {heads, head_dim}), cos, sin), describe(size));
      expect_same_roundings(out, rotary_rms_norm(x.cpu(), weight.cpu(), cos.cpu(), sin.cpu(), kEps),
                            describe(size));
    }
}

TEST_P(Ops, RotatedHeads) {
  for (const auto &[heads, head_dim] :
       {std::pair<int64_t, int64_t>{1, 2}, {3, 8}, {5, 72}, {12, 128}, {40, 128}}) {
    const at::Tensor slots = at::zeros({2, 19, heads, head_dim}, at::dtype(GetParam()).device(test_device()));
    const at::Tensor x =
        random_tokens({1, 19, heads * head_dim}, GetParam()).unflatten(-1, {heads, head_dim});
    const at::Tensor angle = at::rand({19, 1, head_dim / 2}) * 7;
    const at::Tensor cos = angle.cos().to(test_device()), sin = angle.sin().to(test_device());
    const at::Tensor out = slots.narrow(0, 1, 1), on_cpu = at::empty_like(x.cpu());
    rotate_heads(x, cos, sin, out);
    expect_near(out, plain_rotation(exact(x), cos, sin), "rotation");
    rotate_heads(x.cpu(), cos.cpu(), sin.cpu(), on_cpu);
    EXPECT_TRUE(at::equal(out.cpu(), on_cpu));
    EXPECT_EQ(slots[0].count_nonzero().item<int64_t>(), 0);
  }
}

TEST_P(Ops, HeadsAreTurnedAlikeAloneAndInABatch) {
  const at::Tensor x = random({2, 19, 3, 12}), both = at::empty_like(x), angle = at::rand({19, 1, 6}) * 7;
  const at::Tensor cos = angle.cos().to(test_device()), sin = angle.sin().to(test_device());
  rotate_heads(x, cos, sin, both);
  for (int64_t i = 0; i < 2; ++i) {
    const at::Tensor alone = at::empty_like(x.narrow(0, i, 1));
    rotate_heads(x.narrow(0, i, 1), cos, sin, alone);
    EXPECT_TRUE(at::equal(alone, both.narrow(0, i, 1)));
  }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Ops, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto &info) { return std::string(toString(info.param)); });

}  // namespace
}  // namespace wan::test
