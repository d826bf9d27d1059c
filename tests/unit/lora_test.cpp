// SPDX-License-Identifier: LGPL-2.1-or-later
//
// LoRAs: what is added to which tensor, and which files are refused. Whether the sums are right, tests/parity
// tells.
#include "checkpoint/lora.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "checkpoint/names.h"
#include "common/conditioned_models.h"
#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/write_safetensors.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

/// A small expert: shapes, and weights of ones.
const TensorShapes kShapes = {
    {"patch_embedding.weight", {8, 4, 1, 2, 2}},
    {"patch_embedding.bias", {8}},
    {"scale_shift_table", {1, 2, 8}},
    {"proj_out.weight", {16, 8}},
    {"blocks.0.scale_shift_table", {1, 6, 8}},
    {"blocks.0.norm2.weight", {8}},
    {"blocks.0.norm2.bias", {8}},
    {"blocks.0.attn1.norm_q.weight", {8}},
    {"blocks.0.attn1.to_q.weight", {8, 8}},
    {"blocks.0.attn1.to_q.bias", {8}},
    {"blocks.0.ffn.net.0.proj.weight", {12, 8}},
    {"blocks.11.ffn.net.0.proj.weight", {12, 8}},
};

class Ones : public WeightSource {
 public:
  at::Tensor load(const std::string &, at::IntArrayRef shape, at::ScalarType dtype) override {
    return at::ones(shape, at::dtype(dtype));
  }
  std::optional<ScaledFp8> load_fp8(const std::string &, at::IntArrayRef shape) override {
    return ScaledFp8{at::ones(shape).to(at::kFloat8_e4m3fn), at::ones({1, 1})};
  }
  std::optional<BlockMatrix> load_blocks(const std::string &, at::IntArrayRef) override {
    return BlockMatrix{at::zeros({1}, at::kByte), find_block_format("Q8_0")};
  }
};

class LoraFiles : public testing::Test {
 protected:
  Lora lora(const Tensors &tensors, double strength = 1, double strength_2 = 1) const {
    write_safetensors(path_, tensors);
    return {path_, strength, strength_2};
  }
  static LoraWeights with(const std::vector<Lora> &loras, const std::string &component = "transformer") {
    return {std::make_unique<Ones>(), kShapes, loras, component};
  }
  static at::Tensor load(LoraWeights &weights, const std::string &name, at::ScalarType dtype = at::kFloat) {
    return weights.load(name, kShapes.at(name), dtype);
  }
  std::string refusal(const Tensors &tensors, const std::string &component = "transformer") const {
    try {
      with({lora(tensors)}, component);
    } catch (const Error &error) {
      EXPECT_EQ(error.kind(), WAN_INVALID);
      EXPECT_THAT(error.what(), HasSubstr(path_.string()));
      return error.what();
    }
    return "accepted";
  }

  const c10::InferenceMode inference_;
  const TemporaryDirectory directory_;
  const fs::path path_ = directory_.path() / "lora.safetensors";
};

TEST_F(LoraFiles, WholeDifferencesOfWeightsBiasesNormsAndTables) {
  const Tensors diffs = {{"diffusion_model.blocks.0.self_attn.norm_q.diff", at::arange(8, at::kFloat)},
                         {"diffusion_model.blocks.0.norm3.diff", at::full({8}, 2.0f)},
                         {"diffusion_model.blocks.0.norm3.diff_b", at::full({8}, 3.0f)},
                         {"diffusion_model.blocks.0.diff_m", at::full({1, 6, 8}, 4.0f)},
                         {"diffusion_model.head.diff_m", at::full({1, 2, 8}, 5.0f)},
                         {"diffusion_model.head.head.diff", at::full({16, 8}, 6.0f)},
                         {"diffusion_model.patch_embedding.diff_b", at::full({8}, 7.0f)}};
  LoraWeights weights = with({lora(diffs, 0.5)});
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.norm_q.weight"), 1 + 0.5 * at::arange(8, at::kFloat)));
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.norm2.weight"), at::full({8}, 2.0f)));
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.norm2.bias"), at::full({8}, 2.5f)));
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.scale_shift_table"), at::full({1, 6, 8}, 3.0f)));
  EXPECT_TRUE(at::equal(load(weights, "scale_shift_table"), at::full({1, 2, 8}, 3.5f)));
  EXPECT_TRUE(at::equal(load(weights, "proj_out.weight"), at::full({16, 8}, 4.0f)));
  EXPECT_TRUE(at::equal(load(weights, "patch_embedding.bias"), at::full({8}, 4.5f)));
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.to_q.bias"), at::ones({8})));
}

TEST_F(LoraFiles, AlphaIsDividedByTheRankAndScalesAPeftBiasToo) {
  // LightX2V stores alpha as an integer.
  const Tensors tensors = {{"blocks.0.attn1.to_q.lora_A.weight", at::ones({4, 8})},
                           {"blocks.0.attn1.to_q.lora_B.weight", at::ones({8, 4})},
                           {"blocks.0.attn1.to_q.lora_B.bias", at::ones({8})},
                           {"blocks.0.attn1.to_q.alpha", at::scalar_tensor(8, at::kLong)}};
  LoraWeights weights = with({lora(tensors, 0.25)});
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.to_q.weight"), at::full({8, 8}, 3.0f)));
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.to_q.bias"), at::full({8}, 1.5f)));
}

TEST_F(LoraFiles, AnAlphaMayHaveAnyKindOfNumber) {
  for (const at::ScalarType dtype : {at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
                                     at::kBFloat16, at::kFloat, at::kDouble})
    for (const at::Tensor &alpha : {at::scalar_tensor(2, dtype), at::scalar_tensor(2, dtype).view(1)}) {
      LoraWeights weights = with({lora({{"blocks.0.attn1.to_q.lora_A.weight", at::ones({4, 8})},
                                        {"blocks.0.attn1.to_q.lora_B.weight", at::ones({8, 4})},
                                        {"blocks.0.attn1.to_q.alpha", alpha}})});
      EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.to_q.weight"), at::full({8, 8}, 3.0f))) << dtype;
    }
}

TEST_F(LoraFiles, EveryPublishedSpellingOfAKey) {
  const at::Tensor down = at::randn({2, 8}), up = at::randn({8, 2});
  const auto merged = [&](const std::string &down_key, const std::string &up_key) {
    LoraWeights weights = with({lora({{down_key, down}, {up_key, up}})});
    return load(weights, "blocks.0.attn1.to_q.weight");
  };
  const at::Tensor expected = merged("transformer.blocks.0.attn1.to_q.lora_A.weight",
                                     "transformer.blocks.0.attn1.to_q.lora_B.weight");
  EXPECT_FALSE(at::equal(expected, at::ones({8, 8})));
  for (const std::string module :
       {"diffusion_model.blocks.0.self_attn.q", "model.diffusion_model.blocks.0.self_attn.q",
        "lora_unet_blocks_0_self_attn_q", "lora_unet__blocks_0_self_attn_q", "lora_unet_blocks_0.self_attn.q",
        "pipe.dit.blocks.0.self_attn.q", "unet.blocks.0.attn1.to_q", "base_model.model.blocks.0.self_attn.q",
        "base_model.model.transformer.blocks.0.attn1.to_q", "transformer._orig_mod.blocks.0.attn1.to_q",
        "lora_transformer_blocks_0_attn1_to_q", "lycoris_blocks_0_self_attn_q", "blocks.0.self_attn.q"})
    for (const auto &[first, second] : {std::pair{".lora_down.weight", ".lora_up.weight"},
                                        {".lora.down.weight", ".lora.up.weight"},
                                        {"_lora.down.weight", "_lora.up.weight"},
                                        {".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"},
                                        {".lora_A.weight", ".lora_B.weight"},
                                        {".lora_A", ".lora_B"},
                                        {".lora_A.default.weight", ".lora_B.default.weight"},
                                        {".lora_A.default_0.weight", ".lora_B.default_0.weight"},
                                        {".lora_A.high_noise.weight", ".lora_B.high_noise.weight"}})
      EXPECT_TRUE(at::equal(merged(module + first, module + second), expected)) << module << first;
  EXPECT_TRUE(at::equal(merged("transformer.blocks.0.attn1.processor.to_q_lora.down.weight",
                               "transformer.blocks.0.attn1.processor.to_q_lora.up.weight"),
                        expected));
  // Both in one file.
  EXPECT_TRUE(at::equal(merged("lora_unet__blocks_0_self_attn_q.lora_down.weight",
                               "pipe.dit.blocks.0.self_attn.q.lora_B.default.weight"),
                        expected));
}

TEST_F(LoraFiles, WhatIsForAnImageIsLeftOutWithAWarning) {
  const Tensors common = {{"diffusion_model.blocks.0.norm3.diff", at::ones({8})}};
  const Tensors image = {{"diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight", at::ones({2, 8})},
                         {"diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight", at::ones({8, 2})},
                         {"diffusion_model.blocks.0.cross_attn.norm_k_img.diff", at::ones({8})},
                         {"lora_unet_blocks_0_cross_attn_v_img.alpha", at::scalar_tensor(1)},
                         {"diffusion_model.img_emb.proj.1.diff_b", at::ones({8})},
                         {"transformer.blocks.0.attn2.add_k_proj.lora_A.weight", at::ones({2, 8})},
                         {"transformer.condition_embedder.image_embedder.norm1.diff", at::ones({8})}};
  Tensors both = common;
  both.insert(image.begin(), image.end());
  LoraWeights rest = with({lora(common)});
  EXPECT_TRUE(rest.warnings().empty());
  Tensors expected;  // read now, since the next file is written over this one
  for (const auto &[name, shape] : kShapes) expected[name] = load(rest, name);
  LoraWeights weights = with({lora(both)});
  for (const auto &[name, tensor] : expected) EXPECT_TRUE(at::equal(load(weights, name), tensor)) << name;
  ASSERT_EQ(weights.warnings().size(), 1u);
  EXPECT_THAT(*weights.warnings().begin(), AllOf(HasSubstr(path_.string()), HasSubstr("sees an image")));
  for (const auto &[key, tensor] : image) EXPECT_THAT(*weights.warnings().begin(), HasSubstr(key));
  EXPECT_THAT(refusal(image), HasSubstr("only what models that see an image have"));
}

/// A tensor by the original release's name, as a small I2V-A14B has it: ".weight" or ".bias" of a module.
std::vector<int64_t> shape_in_original(const TensorShapes &shapes, const std::string &name) {
  return shapes.at(diffusers_name(Naming::kOriginalTransformer, name));
}

/// What the four-step LoRAs for I2V-A14B change in each block, and what lies outside of them.
std::vector<std::string> linear_modules(bool also_outside) {
  std::vector<std::string> modules;
  for (const std::string block : {"blocks.0.", "blocks.1."})
    for (const char *module : {"self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q",
                               "cross_attn.k", "cross_attn.v", "cross_attn.o", "ffn.0", "ffn.2"})
      modules.push_back(block + module);
  if (also_outside)
    for (const char *module : {"text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2",
                               "time_projection.1", "head.head"})
      modules.emplace_back(module);
  return modules;
}

void add_low_rank(Tensors &lora, const TensorShapes &shapes, const std::string &module) {
  const std::vector<int64_t> shape = shape_in_original(shapes, module + ".weight");
  lora["diffusion_model." + module + ".lora_down.weight"] = at::ones({4, shape[1]}, at::kBFloat16);
  lora["diffusion_model." + module + ".lora_up.weight"] = at::ones({shape[0], 4}, at::kBFloat16);
}

/// lightx2v/Wan2.2-Lightning: the blocks' matrices, with alphas.
Tensors lightning(const TensorShapes &shapes) {
  Tensors lora;
  for (const std::string &module : linear_modules(/*also_outside=*/false)) {
    add_low_rank(lora, shapes, module);
    lora["diffusion_model." + module + ".alpha"] = at::scalar_tensor(8, at::kBFloat16);
  }
  return lora;
}

/// lightx2v/Wan2.2-Distill-Loras: all there is, and of Wan 2.1 what A14B has not.
Tensors distilled(const TensorShapes &shapes) {
  Tensors lora;
  const auto add_diff = [&](const std::string &tensor, const std::string &key) {
    lora["diffusion_model." + key] = at::ones(shape_in_original(shapes, tensor), at::kBFloat16);
  };
  for (const std::string &module : linear_modules(/*also_outside=*/true)) {
    add_low_rank(lora, shapes, module);
    add_diff(module + ".bias", module + ".diff_b");
  }
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    for (const char *norm :
         {"self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k"})
      add_diff(block + norm + ".weight", block + norm + ".diff");
    add_diff(block + "norm3.weight", block + "norm3.diff");
    add_diff(block + "norm3.bias", block + "norm3.diff_b");
    add_diff(block + "modulation", block + "diff_m");
    for (const std::string image : {"cross_attn.k_img", "cross_attn.v_img"}) {
      lora["diffusion_model." + block + image + ".lora_down.weight"] = at::ones({4, 8});
      lora["diffusion_model." + block + image + ".lora_up.weight"] = at::ones({8, 4});
      lora["diffusion_model." + block + image + ".diff_b"] = at::ones({8});
    }
    lora["diffusion_model." + block + "cross_attn.norm_k_img.diff"] = at::ones({8});
  }
  add_diff("head.modulation", "head.diff_m");
  add_diff("patch_embedding.weight", "patch_embedding.diff");
  add_diff("patch_embedding.bias", "patch_embedding.diff_b");
  lora["diffusion_model.img_emb.proj.0.diff"] = at::ones({8});
  lora["diffusion_model.img_emb.proj.1.lora_down.weight"] = at::ones({4, 8});
  lora["diffusion_model.img_emb.proj.1.lora_up.weight"] = at::ones({8, 4});
  return lora;
}

TEST_F(LoraFiles, ForFourStepsFromAPictureAreMergedAsTheyArePublished) {
  TensorShapes shapes;
  for (const auto &[name, tensor] : ConditionedModel("i2v-a14b", directory_.path() / "model").transformer())
    shapes[name] = tensor.sizes().vec();
  ASSERT_EQ(shapes.at("patch_embedding.weight")[1], 36);
  const auto changed = [&](LoraWeights &weights) {
    std::vector<std::string> names;
    for (const auto &[name, shape] : shapes)
      if (!at::equal(weights.load(name, shape, at::kFloat), at::ones(shape))) names.push_back(name);
    return names;
  };
  const auto merged = [&](const Lora &lora, const char *component) {
    return LoraWeights(std::make_unique<Ones>(), shapes, {lora}, component);
  };
  const Lora fast = lora(lightning(shapes), /*strength=*/1, /*strength_2=*/0);
  LoraWeights high = merged(fast, "transformer");
  EXPECT_EQ(changed(high).size(), 20u);
  EXPECT_TRUE(high.warnings().empty());
  const std::vector<int64_t> query = shapes.at("blocks.1.attn1.to_q.weight");
  EXPECT_TRUE(at::equal(high.load("blocks.1.attn1.to_q.weight", query, at::kFloat), at::full(query, 9.0)))
      << "1 + alpha 8 / rank 4 · rank 4";

  LoraWeights whole = merged(lora(distilled(shapes)), "transformer_2");
  EXPECT_EQ(changed(whole).size(), shapes.size()) << "each tensor of the expert";
  ASSERT_EQ(whole.warnings().size(), 1u);
  EXPECT_THAT(*whole.warnings().begin(),
              AllOf(HasSubstr("blocks.0.cross_attn.k_img.lora_down.weight"), HasSubstr("9 more")));
}

TEST_F(LoraFiles, OtherKindsOfAdaptersAreNamed) {
  for (const auto &[suffix, kind] : {std::pair{".dora_scale", "DoRA"},
                                     {".lora_magnitude_vector", "DoRA"},
                                     {".hada_w1_a", "LoHa"},
                                     {".lokr_w1", "LoKr"}})
    EXPECT_THAT(refusal({{"blocks.0.norm3.diff", at::ones({8})},
                         {std::string("blocks.0.attn1.to_q") + suffix, at::ones({8})}}),
                AllOf(HasSubstr(kind), HasSubstr(suffix)));
}

TEST_F(LoraFiles, AFileThatBecomesShorterIsAnError) {
  LoraWeights weights = with({lora({{"blocks.0.norm3.diff", at::ones({8})}})});
  fs::resize_file(path_, fs::file_size(path_) - 4);
  EXPECT_THROW(load(weights, "blocks.0.norm2.weight"), Error);
}

TEST_F(LoraFiles, AShapeThatOverflowsIsAnErrorThatNamesTheFile) {
  const std::string header =
      R"({"blocks.0.attn1.to_q.alpha":{"dtype":"F32","shape":[0,4611686018427387904,4],"data_offsets":[0,0]}})";
  const uint64_t length = header.size();
  std::ofstream file(path_, std::ios::binary);
  file.write(reinterpret_cast<const char *>(&length), sizeof length) << header;
  file.close();
  try {
    with({{path_, 1, 1}});
    FAIL() << "accepted";
  } catch (const Error &error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(path_.string()), HasSubstr("to_q.alpha")));
  }
}

TEST_F(LoraFiles, AConvolution) {
  const Tensors tensors = {{"lora_unet_patch_embedding.lora_down.weight", at::ones({2, 4, 1, 2, 2})},
                           {"lora_unet_patch_embedding.lora_up.weight", at::ones({8, 2, 1, 1, 1})}};
  LoraWeights weights = with({lora(tensors)});
  EXPECT_TRUE(at::equal(load(weights, "patch_embedding.weight"), at::full({8, 4, 1, 2, 2}, 3.0f)));
}

TEST_F(LoraFiles, TheSumIsRoundedOnce) {
  // 1 + 2^-8 + 2^-8 is a bfloat16, 1 + 2^-8 is none.
  const Tensors tensors = {{"blocks.0.attn1.to_q.diff_b", at::full({8}, 0x1p-8f)}};
  const Lora half = lora(tensors);
  LoraWeights weights = with({half, half});
  EXPECT_TRUE(at::equal(load(weights, "blocks.0.attn1.to_q.bias", at::kBFloat16),
                        at::full({8}, 1 + 0x1p-7f, at::kBFloat16)));
}

TEST_F(LoraFiles, AStoredMatrixIsThereOnlyWhereNothingChangesIt) {
  LoraWeights weights = with({lora({{"proj_out.diff", at::ones({16, 8})}})});
  EXPECT_FALSE(weights.load_fp8("proj_out.weight", {16, 8}));
  EXPECT_TRUE(weights.load_fp8("blocks.0.attn1.to_q.weight", {8, 8}));
  EXPECT_FALSE(weights.load_blocks("proj_out.weight", {16, 8}));
  EXPECT_TRUE(weights.load_blocks("blocks.0.attn1.to_q.weight", {8, 8}));
}

TEST_F(LoraFiles, EachExpertGetsItsStrengthAndItsKeys) {
  const std::string bias = "blocks.0.attn1.to_q.bias";
  const Lora both = lora({{"transformer.blocks.0.attn1.to_q.diff_b", at::ones({8})}}, 1, 3);
  LoraWeights high = with({both}), low = with({both}, "transformer_2");
  EXPECT_EQ(load(high, bias)[0].item<float>(), 2);
  EXPECT_EQ(load(low, bias)[0].item<float>(), 4);

  const Lora apart = lora({{"transformer.blocks.0.attn1.to_q.diff_b", at::ones({8})},
                           {"transformer_2.blocks.0.attn1.to_q.diff_b", at::full({8}, 9.0f)}});
  LoraWeights first = with({apart}), second = with({apart}, "transformer_2");
  EXPECT_EQ(load(first, bias)[0].item<float>(), 2);
  EXPECT_EQ(load(second, bias)[0].item<float>(), 10);
  for (const auto &[one, two] : {std::pair{"pipe.dit.", "pipe.dit2."},
                                 {"base_model.model.transformer.", "base_model.model.transformer_2."}}) {
    const Lora file = lora({{std::string(one) + "blocks.0.attn1.to_q.diff_b", at::ones({8})},
                            {std::string(two) + "blocks.0.attn1.to_q.diff_b", at::full({8}, 9.0f)}});
    LoraWeights of_one = with({file}), of_two = with({file}, "transformer_2");
    EXPECT_EQ(load(of_one, bias)[0].item<float>(), 2);
    EXPECT_EQ(load(of_two, bias)[0].item<float>(), 10);
  }

  // What an expert does not get is not even looked at.
  const Lora neither = lora({{"transformer.nonsense", at::ones({8})}}, 0, 0);
  LoraWeights unchanged = with({neither});
  EXPECT_EQ(load(unchanged, bias)[0].item<float>(), 1);
}

TEST_F(LoraFiles, KeysThatMatchNothingAreListed) {
  EXPECT_THAT(refusal({{"diffusion_model.blocks.0.self_attn.q.lora_mid.weight", at::ones({1})}}),
              HasSubstr("stand for no weight of transformer: "
                        "diffusion_model.blocks.0.self_attn.q.lora_mid.weight"));
  EXPECT_THAT(refusal({{"a.diff", at::ones({1})},
                       {"b.diff", at::ones({1})},
                       {"blocks.1.norm3.diff", at::ones({8})},
                       {"d.diff", at::ones({1})},
                       {"e.diff", at::ones({1})}}),
              HasSubstr(": a.diff, b.diff, blocks.1.norm3.diff and 2 more"));
  // A number that only begins like one of the model's, and kohya's underscores taken apart in the wrong
  // place.
  EXPECT_THAT(refusal({{"lora_unet_blocks_1_ffn_0.diff", at::ones({12, 8})}}), HasSubstr("blocks_1_ffn_0"));
  EXPECT_THAT(refusal({{"blocks.0.self_attn_q.diff", at::ones({8, 8})}}), HasSubstr("self_attn_q"));
  // Names of the original modules without parameters are none of Diffusers' either.
  EXPECT_THAT(refusal({{"blocks.0.attn1.norm_q.diff_b", at::ones({8})}}), HasSubstr("stand for no weight"));
  EXPECT_THAT(refusal({}), HasSubstr("holds no tensors"));
}

TEST_F(LoraFiles, TextEncoderKeys) {
  EXPECT_THAT(refusal({{"lora_te_encoder_block_0_q.lora_up.weight", at::ones({1})}}),
              AllOf(HasSubstr("text encoder"), HasSubstr("lora_te_encoder_block_0_q.lora_up.weight")));
  EXPECT_THAT(refusal({{"text_encoder.encoder.lora_A.weight", at::ones({1})}}), HasSubstr("text encoder"));
}

TEST_F(LoraFiles, HalvesAndDuplicates) {
  EXPECT_THAT(refusal({{"blocks.0.attn1.to_q.lora_A.weight", at::ones({1, 8})}}),
              AllOf(HasSubstr("only one of the two matrices"), HasSubstr("to_q.lora_A.weight")));
  EXPECT_THAT(refusal({{"blocks.0.attn1.to_q.alpha", at::ones({1})}}), HasSubstr("to_q.alpha"));
  EXPECT_THAT(refusal({{"blocks.0.attn1.to_q.diff_b", at::ones({8})},
                       {"diffusion_model.blocks.0.self_attn.q.diff_b", at::ones({8})}}),
              HasSubstr("second tensor"));
}

TEST_F(LoraFiles, WrongShapesAndNumbers) {
  const auto product = [](const at::Tensor &down, const at::Tensor &up) {
    return Tensors{{"blocks.0.attn1.to_q.lora_A.weight", down}, {"blocks.0.attn1.to_q.lora_B.weight", up}};
  };
  EXPECT_EQ(refusal(product(at::ones({2, 8}), at::ones({8, 2}))), "accepted");
  EXPECT_THAT(refusal(product(at::ones({2, 7}), at::ones({8, 2}))),
              AllOf(HasSubstr("wrong shapes"), HasSubstr("to_q.lora_A.weight [2, 7] for"),
                    HasSubstr("blocks.0.attn1.to_q.weight [8, 8]")));
  EXPECT_THAT(refusal(product(at::ones({2, 8}), at::ones({8, 3}))), HasSubstr("wrong shapes"));
  EXPECT_THAT(refusal(product(at::ones({0, 8}), at::ones({8, 0}))), HasSubstr("wrong shapes"));
  EXPECT_THAT(refusal(product(at::ones({8}), at::ones({8}))), HasSubstr("wrong shapes"));
  EXPECT_THAT(refusal(product(at::scalar_tensor(1), at::scalar_tensor(1))), HasSubstr("wrong shapes"));
  EXPECT_THAT(refusal({{"blocks.0.norm3.diff", at::ones({1, 8})}}), HasSubstr("wrong shapes"));
  Tensors endless = product(at::ones({2, 8}), at::ones({8, 2}));
  endless["blocks.0.attn1.to_q.alpha"] = at::scalar_tensor(INFINITY);
  EXPECT_THAT(refusal(endless), HasSubstr("alpha that is not a number"));
  endless["blocks.0.attn1.to_q.alpha"] = at::ones({2});
  EXPECT_THAT(refusal(endless), HasSubstr("alpha that is not a number"));
  EXPECT_THAT(refusal({{"blocks.0.norm3.diff", at::ones({8}).to(at::kByte)}}), HasSubstr("dtype U8"));
  write_safetensors(path_, product(at::ones({2, 8}), at::ones({8, 2})), {{"lora_adapter_metadata", "{"}});
  EXPECT_THROW(with({{path_, 1, 1}}), Error);
  EXPECT_THROW((Lora{path_, NAN, 1}), Error);
  EXPECT_THROW((Lora{directory_.path() / "lora.pt", 1, 1}), Error);
}

TEST_F(LoraFiles, TheTwoSpellingsOfATransformersNames) {
  for (const auto &[diffusers, original] :
       {std::pair{"blocks.12.attn2.to_out.0.weight", "blocks.12.cross_attn.o.weight"},
        {"blocks.0.attn1.norm_q.weight", "blocks.0.self_attn.norm_q.weight"},
        {"blocks.7.norm2.bias", "blocks.7.norm3.bias"},
        {"blocks.3.scale_shift_table", "blocks.3.modulation"},
        {"scale_shift_table", "head.modulation"},
        {"condition_embedder.time_proj.bias", "time_projection.1.bias"},
        {"patch_embedding.weight", "patch_embedding.weight"}}) {
    EXPECT_EQ(stored_name(Naming::kOriginalTransformer, diffusers), original);
    EXPECT_EQ(diffusers_name(Naming::kOriginalTransformer, original), diffusers);
  }
  for (const char *same : {"proj_outer.weight", "blocks.x.norm2.weight"})
    EXPECT_EQ(stored_name(Naming::kOriginalTransformer, same), same);
}

class LoraModel : public LoraFiles {
 protected:
  at::Tensor frame(std::vector<WanLora> loras) const {
    WanGenerateOptions options = tiny_options();
    options.num_frames = 1;
    options.steps = 2;
    return generate_clip(load_model(tiny_model(), "cpu", WAN_DTYPE_AUTO, std::move(loras)), options);
  }
  Failure failure(const WanLora &lora) const {
    try {
      load_model(tiny_model(), "cpu", WAN_DTYPE_AUTO, {lora});
    } catch (const Failure &failure) {
      return failure;
    }
    return {WAN_OK, ""};
  }
};

TEST_F(LoraModel, ChangesTheVideoOfEitherExpertAndLeavesItAtStrengthZero) {
  write_safetensors(path_, {{"diffusion_model.head.head.diff_b", at::ones({64})}});
  const std::string path = path_.string();
  const at::Tensor plain = frame({});
  EXPECT_TRUE(at::equal(frame({{path.c_str(), 0, 0}}), plain));
  const at::Tensor high = frame({{path.c_str(), 1, 0}}), low = frame({{path.c_str(), 0, 1}});
  EXPECT_FALSE(at::equal(high, plain));
  EXPECT_FALSE(at::equal(low, plain));
  EXPECT_FALSE(at::equal(low, high));
}

TEST_F(LoraModel, OneWarningOfTheInterfaceListsWhatIsLeftOut) {
  write_safetensors(path_, {{"diffusion_model.head.head.diff_b", at::ones({64})},
                            {"diffusion_model.blocks.0.cross_attn.norm_k_img.diff", at::ones({256})}});
  const std::string path = path_.string(), uri = "file://" + path;
  const WanLora lora = {uri.c_str(), 1, 1};
  WanLoadOptions options{};
  const std::string directory = tiny_model();
  options.model_dir = directory.c_str();
  options.device = "cpu";
  options.loras = &lora;
  options.num_loras = 1;
  std::vector<std::string> warnings;
  WanCallbacks callbacks{};
  callbacks.user = &warnings;
  callbacks.log = [](void *user, WanLogLevel level, const char *message) {
    if (level == WAN_LOG_WARNING) static_cast<std::vector<std::string> *>(user)->push_back(message);
  };
  WanModel *model = nullptr;
  WanError error;
  ASSERT_EQ(api().load(&options, &callbacks, &model, &error), WAN_OK) << error.message;
  api().model_free(model);
  ASSERT_EQ(std::ranges::count_if(warnings, [](const auto &text) { return text.find("LoRA") != text.npos; }),
            1);
  EXPECT_THAT(warnings, testing::Contains(AllOf(HasSubstr(path), HasSubstr("norm_k_img.diff"))));
}

TEST_F(LoraModel, ErrorsOfTheInterface) {
  const std::string path = path_.string();
  EXPECT_EQ(failure({path.c_str(), 1, 1}).status, WAN_NOT_FOUND);
  EXPECT_THAT(failure({path.c_str(), 1, 1}).message, HasSubstr(path));
  std::ofstream(path_) << "pickled, perhaps";
  EXPECT_EQ(failure({path.c_str(), 1, 1}).status, WAN_INVALID);
  write_safetensors(path_, {{"blocks.6.norm3.diff", at::ones({256})}});
  const Failure unmatched = failure({path.c_str(), 0, 1});
  EXPECT_EQ(unmatched.status, WAN_INVALID);
  EXPECT_THAT(unmatched.message, AllOf(HasSubstr(path), HasSubstr("transformer_2: blocks.6.norm3.diff")));
}

}  // namespace
}  // namespace wan::test
