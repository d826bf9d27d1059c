// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Checkpoints in other layouts than Diffusers': the embedded model, written anew in each, makes the same
// video bit for bit.
#include "checkpoint/layout.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "checkpoint/weights.h"
#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "common/write_gguf.h"
#include "common/write_safetensors.h"
#include "pipeline/memory_mode.h"

namespace wan::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

Tensors renamed(const Tensors &tensors, Naming naming, const std::string &prefix = "") {
  Tensors stored;
  for (const auto &[name, tensor] : tensors) stored[prefix + stored_name(naming, name)] = tensor;
  return stored;
}

void edit_json(const fs::path &path, const std::function<void(nlohmann::json &)> &change) {
  nlohmann::json json = nlohmann::json::parse(std::ifstream(path));
  change(json);
  std::ofstream(path) << json;
}

TEST(Names, AreThoseOfDiffusersConversion) {
  const auto json = nlohmann::json::parse(std::ifstream(source_path("tests/parity/names.json")));
  for (const auto &[component, naming] :
       {std::pair{"transformer", Naming::kOriginalTransformer}, {"vae", Naming::kOriginalVae}})
    for (const auto &[diffusers, original] : json.at(component).items()) {
      EXPECT_EQ(stored_name(naming, diffusers), original.get<std::string>());
      EXPECT_EQ(diffusers_name(naming, original.get<std::string>()), diffusers);
    }
  EXPECT_EQ(stored_name(Naming::kOriginalTextEncoder, "encoder.block.23.layer.1.DenseReluDense.wi_0.weight"),
            "blocks.23.ffn.gate.0.weight");
}

TEST(Names, OfTheResidualVae) {
  const auto expect_both = [](const std::string &diffusers, const std::string &original) {
    EXPECT_EQ(stored_name(Naming::kOriginalResidualVae, diffusers), original);
    EXPECT_EQ(diffusers_name(Naming::kOriginalResidualVae, original), diffusers);
  };
  expect_both("encoder.down_blocks.1.resnets.0.conv_shortcut.bias",
              "encoder.downsamples.1.downsamples.0.shortcut.bias");
  expect_both("encoder.down_blocks.2.downsampler.time_conv.weight",
              "encoder.downsamples.2.downsamples.2.time_conv.weight");
  expect_both("encoder.down_blocks.3.resnets.1.norm2.gamma",
              "encoder.downsamples.3.downsamples.1.residual.3.gamma");
  expect_both("decoder.up_blocks.0.upsampler.resample.1.weight",
              "decoder.upsamples.0.upsamples.3.resample.1.weight");
  expect_both("decoder.up_blocks.3.resnets.2.conv2.weight",
              "decoder.upsamples.3.upsamples.2.residual.6.weight");
  expect_both("decoder.mid_block.resnets.1.conv1.weight", "decoder.middle.2.residual.2.weight");
  expect_both("quant_conv.weight", "conv1.weight");
}

class Layout : public testing::Test {
 protected:
  Layout() {
    // A single file does not tell the latents' mean and deviation, so both have the released ones.
    fs::copy(tiny_model(), diffusers_, fs::copy_options::recursive);
    edit_json(diffusers_ / "vae/config.json", [](nlohmann::json &vae) {
      vae["latents_mean"] = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                             0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
      vae["latents_std"] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                            3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
    });
    fs::create_directory(model_);
    fs::copy(diffusers_ / "gst-wan.json", model_ / "gst-wan.json");
    for (const char *expert : {"transformer", "transformer_2"})
      experts_[expert] = read_safetensors(diffusers_ / expert / "diffusion_pytorch_model.safetensors");
    vae_ = read_safetensors(diffusers_ / "vae/diffusion_pytorch_model.safetensors");
    text_encoder_ = read_safetensors(diffusers_ / "text_encoder/model.safetensors");
  }

  void write_tokenizer(const fs::path &place) const {
    fs::create_directories(place.parent_path());
    fs::copy(diffusers_ / "tokenizer", place, fs::copy_options::recursive);
  }
  /// As ComfyUI has them.
  void write_comfyui() const {
    write_safetensors(model_ / "diffusion_models/wan2.2_t2v_high_noise_14B.safetensors",
                      renamed(experts_.at("transformer"), Naming::kOriginalTransformer));
    write_safetensors(
        model_ / "diffusion_models/wan2.2_t2v_low_noise_14B.safetensors",
        renamed(experts_.at("transformer_2"), Naming::kOriginalTransformer, "model.diffusion_model."));
    Tensors text_encoder = text_encoder_;
    text_encoder["spiece_model"] = at::zeros({10}, at::kByte);
    write_safetensors(model_ / "text_encoders/umt5_xxl.safetensors", text_encoder);
    text_encoder.erase("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight");
    write_safetensors(model_ / "text_encoders/t5xxl.safetensors", text_encoder);
    write_safetensors(model_ / "vae/wan_2.1_vae.safetensors", renamed(vae_, Naming::kOriginalVae));
    write_tokenizer(model_ / "tokenizer");
  }

  /// A directory as GGUF is published, with the VAE in safetensors. store: what a tensor of Diffusers
  /// becomes.
  void write_gguf(const std::function<GgufTensor(const std::string &, const at::Tensor &)> &store) const {
    const auto stored = [&store](const Tensors &tensors, Naming naming, const std::string &prefix = "") {
      GgufTensors all;
      for (const auto &[name, tensor] : tensors)
        all[prefix + stored_name(naming, name)] = store(name, tensor);
      return all;
    };
    for (const char *place : {"HighNoise", "LowNoise", "text_encoders"}) fs::create_directory(model_ / place);
    GgufTensors high = stored(experts_.at("transformer"), Naming::kOriginalTransformer);
    // As ggml leaves it where it is not told, and as stable-diffusion.cpp writes it.
    high["head.modulation"].shape.erase(high["head.modulation"].shape.begin());
    std::vector<int64_t> &patches = high["patch_embedding.weight"].shape;
    patches = {patches[0] * patches[1], patches[2], patches[3], patches[4]};
    write_file(model_ / "HighNoise/Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf", gguf_of(high));
    write_file(model_ / "LowNoise/Wan2.2-T2V-A14B-LowNoise-Q4_K_M.gguf",
               gguf_of(stored(experts_.at("transformer_2"), Naming::kOriginalTransformer,
                              "model.diffusion_model.")));
    write_file(model_ / "text_encoders/umt5-xxl-encoder-Q8_0.gguf",
               gguf_of(stored(text_encoder_, Naming::kLlamaTextEncoder)));
    write_safetensors(model_ / "VAE/Wan2.1_VAE.safetensors", renamed(vae_, Naming::kOriginalVae));
    write_tokenizer(model_ / "tokenizer");
  }

  static at::Tensor video(const fs::path &model, const std::vector<WanLora> &loras = {},
                          WanQuantization quantization = WAN_QUANTIZATION_NONE) {
    WanGenerateOptions options = tiny_options();
    options.num_frames = 5;
    options.steps = 2;
    return generate_clip(load_model(model.string(), "cpu", WAN_DTYPE_AUTO, loras, quantization), options);
  }
  void expect_same_video() const { EXPECT_TRUE(at::equal(video(model_), video(diffusers_))); }
  std::string refusal(WanStatus expected) const {
    try {
      load_model(model_.string(), "cpu");
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, expected) << failure.message;
      EXPECT_THAT(failure.message, HasSubstr(model_.string()));
      return failure.message;
    }
    return "accepted";
  }

  const c10::InferenceMode inference_;
  const TemporaryDirectory directory_;
  const fs::path diffusers_ = directory_.path() / "diffusers", model_ = directory_.path() / "model";
  std::map<std::string, Tensors> experts_;
  Tensors vae_, text_encoder_;
};

TEST_F(Layout, OriginalRelease) {
  const std::string stem = "diffusion_pytorch_model";
  for (const auto &[directory, expert] :
       {std::pair{"high_noise_model", "transformer"}, {"low_noise_model", "transformer_2"}}) {
    // In shards.
    const Tensors all = renamed(experts_.at(expert), Naming::kOriginalTransformer);
    Tensors shards[2];
    nlohmann::json weight_map;
    for (const auto &[name, tensor] : all) {
      const size_t shard = weight_map.size() % 2;
      shards[shard][name] = tensor;
      weight_map[name] = stem + "-" + std::to_string(shard) + ".safetensors";
    }
    for (size_t shard = 0; shard < 2; ++shard)
      write_safetensors(model_ / directory / (stem + "-" + std::to_string(shard) + ".safetensors"),
                        shards[shard]);
    std::ofstream(model_ / directory / (stem + ".safetensors.index.json"))
        << nlohmann::json{{"weight_map", weight_map}};
    std::ofstream(model_ / directory / "config.json")
        << R"({"_class_name": "WanModel", "dim": 256, "model_type": "t2v", "num_heads": 2})";
  }
  write_safetensors(model_ / "Wan2.1_VAE.safetensors", renamed(vae_, Naming::kOriginalVae));
  write_safetensors(model_ / "models_t5_umt5-xxl-enc-bf16.safetensors",
                    renamed(text_encoder_, Naming::kOriginalTextEncoder));
  std::ofstream(model_ / "Wan2.1_VAE.pth") << "not looked at";
  write_tokenizer(model_ / "google/umt5-xxl");
  expect_same_video();

  edit_json(model_ / "low_noise_model/config.json", [](nlohmann::json &json) { json["model_type"] = "i2v"; });
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("low_noise_model/config.json"), HasSubstr("i2v")));
  fs::remove_all(model_ / "low_noise_model");
  EXPECT_THAT(refusal(WAN_NOT_FOUND), HasSubstr("low_noise_model is missing"));
}

TEST_F(Layout, ComfyUi) {
  write_comfyui();
  expect_same_video();
  // A LoRA fits every layout.
  const std::string lora = (directory_.path() / "lora.safetensors").string();
  write_safetensors(lora, {{"diffusion_model.head.head.diff_b", at::ones({64})}});
  const std::vector<WanLora> loras = {{lora.c_str(), 1, 1}};
  EXPECT_TRUE(at::equal(video(model_, loras), video(diffusers_, loras)));
}

TEST_F(Layout, OneTransformerInOneDirectory) {
  write_safetensors(model_ / "wan.safetensors", experts_.at("transformer"));
  write_safetensors(model_ / "vae.safetensors", vae_);
  write_safetensors(model_ / "t5.safetensors", text_encoder_);
  write_tokenizer(model_ / "tokenizer");
  edit_json(diffusers_ / "model_index.json", [](nlohmann::json &index) {
    index["transformer_2"] = {nullptr, nullptr};
    index.erase("boundary_ratio");
  });
  expect_same_video();
  const std::string lora = (directory_.path() / "lora.safetensors").string();
  write_safetensors(lora, {{"diffusion_model.head.head.diff_b", at::ones({64})}});
  EXPECT_THROW(video(model_, {{lora.c_str(), 0, 1}}), Failure);
}

/// What is stored of a matrix, and what it stands for.
struct Quantized {
  at::Tensor weight, scale;
  at::Tensor value() const {
    const at::Tensor wide = weight.to(at::kFloat);
    if (!scale.defined()) return wide;
    return wide * (scale.numel() == 1 ? scale.reshape({1, 1}) : scale.reshape({-1, 1}));
  }
};

TEST_F(Layout, Fp8WithOneScaleOneForEachRowAndNone) {
  constexpr double kLargest = 448;
  const auto whole = [](const at::Tensor &w) {
    const at::Tensor scale = w.abs().max() / kLargest;
    return Quantized{(w / scale).to(at::kFloat8_e4m3fn), scale};
  };
  const auto rows = [](const at::Tensor &w) {
    const at::Tensor scale = w.abs().amax(1, /*keepdim=*/true) / kLargest;
    return Quantized{(w / scale).to(at::kFloat8_e4m3fn), scale};
  };
  const auto flat_rows = [&rows](const at::Tensor &w) {
    const Quantized quantized = rows(w);
    return Quantized{quantized.weight, quantized.scale.flatten()};
  };
  const auto none = [](const at::Tensor &w) { return Quantized{w.to(at::kFloat8_e4m3fn), {}}; };
  const auto other = [](const at::Tensor &w) { return Quantized{w.to(at::kFloat8_e5m2), {}}; };
  const std::tuple<std::string, std::string, std::function<Quantized(const at::Tensor &)>> ways[] = {
      {"attn1", ".scale_weight", whole},
      {"attn2.to_k", ".weight_scale", rows},
      {"attn2.to_q", ".weight_scale", flat_rows},
      {"ffn.net.0", "", none},
      {"ffn.net.2", "", other}};
  write_comfyui();
  for (const auto &[expert, file] : {std::pair{"transformer", "high"}, {"transformer_2", "low"}}) {
    Tensors stored, meant;
    for (const auto &[name, tensor] : experts_.at(expert)) {
      const std::string stored_as = stored_name(Naming::kOriginalTransformer, name);
      stored[stored_as] = meant[name] = tensor;
      for (const auto &[part, suffix, quantize] : ways) {
        if (name.find(part) == std::string::npos || tensor.dim() != 2) continue;
        const Quantized quantized = quantize(tensor.to(at::kFloat));
        stored[stored_as] = quantized.weight;
        meant[name] = quantized.value();
        const std::string module = stored_as.substr(0, stored_as.rfind('.'));
        if (quantized.scale.defined()) stored[module + suffix] = quantized.scale;
        if (suffix == ".scale_weight") stored[module + ".scale_input"] = at::ones({1});
      }
    }
    stored["scaled_fp8"] = at::zeros({2}).to(at::kFloat8_e4m3fn);
    write_safetensors(
        model_ / ("diffusion_models/wan2.2_t2v_" + std::string(file) + "_noise_14B.safetensors"), stored);
    write_safetensors(diffusers_ / expert / "diffusion_pytorch_model.safetensors", meant);
  }
  expect_same_video();
}

TEST_F(Layout, TheStoredFp8IsThereForThoseWhoAskForIt) {
  const at::Tensor matrix = at::randn({6, 4}).to(at::kFloat8_e4m3fn), rows = at::arange(1, 7, at::kFloat);
  write_safetensors(model_ / "w.safetensors", {{"whole.weight", matrix},
                                               {"whole.scale_weight", at::scalar_tensor(0.5)},
                                               {"rows.weight", matrix},
                                               {"rows.weight_scale", rows},
                                               {"none.weight", matrix},
                                               {"wide.weight", at::ones({6, 4})},
                                               {"odd.weight", matrix},
                                               {"odd.weight_scale", at::ones({4})}});
  CheckpointWeights weights({model_, "w"}, at::kCPU, [](uint64_t) {});
  const auto fp8 = [&weights](const std::string &name) { return weights.load_fp8(name, {6, 4}); };
  for (const auto &[name, scale] : {std::pair{"whole.weight", at::full({1, 1}, 0.5)},
                                    {"rows.weight", rows.view({6, 1})},
                                    {"none.weight", at::ones({1, 1})}}) {
    const auto stored = fp8(name);
    ASSERT_TRUE(stored) << name;
    EXPECT_EQ(stored->weight.scalar_type(), at::kFloat8_e4m3fn);
    EXPECT_TRUE(at::equal(stored->weight.to(at::kFloat), matrix.to(at::kFloat)));
    EXPECT_TRUE(at::equal(stored->scale, scale)) << name;
    EXPECT_TRUE(at::equal(weights.load(name, {6, 4}, at::kFloat), stored->weight.to(at::kFloat) * scale));
  }
  EXPECT_FALSE(fp8("wide.weight"));
  EXPECT_FALSE(fp8("absent.weight"));
  EXPECT_THROW(fp8("odd.weight"), Error);
  EXPECT_THROW(weights.load("whole.weight", {4, 6}, at::kFloat), Error);
  weights.load("wide.weight", {6, 4}, at::kFloat);
  weights.check_all_loaded({});
}

TEST_F(Layout, GgufAsItIsPublished) {
  write_gguf([](const std::string &, const at::Tensor &tensor) { return gguf_tensor(tensor); });
  expect_same_video();
  const CheckpointConfig config = CheckpointConfig::read(model_);
  EXPECT_EQ(config.files.at("transformer").extension, ".gguf");
  EXPECT_EQ(config.files.at("vae").extension, ".safetensors");
}

TEST_F(Layout, QuantizedGgufMakesTheVideoOfTheValuesThatItStandsFor) {
  Dice dice(3);
  constexpr GgmlType kTypes[] = {GgmlType::kQ4_K, GgmlType::kQ8_0, GgmlType::kQ6_K,   GgmlType::kQ5_1,
                                 GgmlType::kQ3_K, GgmlType::kQ4_0, GgmlType::kIQ4_XS, GgmlType::kQ5_K,
                                 GgmlType::kQ2_K, GgmlType::kQ4_1, GgmlType::kIQ4_NL, GgmlType::kQ5_0};
  // Matrices whose rows the blocks of a type fit, which their names choose; both experts have the same.
  std::map<std::string, GgufTensor> quantized;
  const auto store = [&](const std::string &name, const at::Tensor &tensor) {
    if (const auto known = quantized.find(name); known != quantized.end()) return known->second;
    const GgmlType type = kTypes[std::hash<std::string>()(name) % std::size(kTypes)];
    const BlockFormat &format = *find_block_format(static_cast<uint32_t>(type));
    if (tensor.dim() != 2 || tensor.size(1) % format.elements != 0) return gguf_tensor(tensor);
    return quantized[name] = random_gguf_tensor(format.type, tensor.sizes(), dice);
  };
  write_gguf(store);
  EXPECT_GT(quantized.size(), 50u);
  const auto meant = [&](Tensors tensors) {
    for (auto &[name, tensor] : tensors)
      if (quantized.contains(name)) tensor = dequantized(quantized.at(name));
    return tensors;
  };
  for (const auto &[expert, tensors] : experts_)
    write_safetensors(diffusers_ / expert / "diffusion_pytorch_model.safetensors", meant(tensors));
  write_safetensors(diffusers_ / "text_encoder/model.safetensors", meant(text_encoder_));
  const at::Tensor plain = video(model_);
  EXPECT_TRUE(at::equal(plain, video(diffusers_)));
  // A LoRA is added to the values, and the sum is rounded once.
  const std::string lora = (directory_.path() / "lora.safetensors").string();
  write_safetensors(lora,
                    {{"diffusion_model.blocks.0.self_attn.q.lora_down.weight", at::ones({1, 256})},
                     {"diffusion_model.blocks.0.self_attn.q.lora_up.weight", at::full({256, 1}, 1e-3)}});
  const std::vector<WanLora> loras = {{lora.c_str(), 1, 1}};
  const at::Tensor merged = video(model_, loras);
  EXPECT_TRUE(at::equal(merged, video(diffusers_, loras)));
  EXPECT_FALSE(at::equal(merged, plain));
  // Kept in blocks they are the same values, and a matrix that a LoRA changes is kept as the sum.
  EXPECT_TRUE(at::equal(video(model_, {}, WAN_QUANTIZATION_STORED), plain));
  EXPECT_TRUE(at::equal(video(model_, loras, WAN_QUANTIZATION_STORED), merged));
  const auto blocks = [config = CheckpointConfig::read(model_)](WanQuantization quantization) {
    return WeightBytes::of(config, at::kBFloat16, quantization).blocks;
  };
  EXPECT_LT(blocks(WAN_QUANTIZATION_STORED), blocks(WAN_QUANTIZATION_NONE) / 2);
}

TEST_F(Layout, OnlyGgufIsKeptAsItIsStored) {
  write_comfyui();
  try {
    video(model_, {}, WAN_QUANTIZATION_STORED);
    FAIL() << "accepted";
  } catch (const Failure &failure) {
    EXPECT_THAT(failure.message,
                AllOf(HasSubstr("quantization=stored"), HasSubstr("high_noise_14B.safetensors"),
                      HasSubstr("choose quantization=none")));
  }
}

TEST_F(Layout, GgufThatIsThereTwiceOrBrokenIsNamed) {
  write_gguf([](const std::string &, const at::Tensor &tensor) { return gguf_tensor(tensor); });
  const fs::path low = model_ / "LowNoise/Wan2.2-T2V-A14B-LowNoise-Q4_K_M.gguf";
  fs::copy(low, model_ / "LowNoise/Wan2.2-T2V-A14B-LowNoise-Q8_0.gguf");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("more than one file for the expert for low noise"),
                                          HasSubstr("LowNoise-Q8_0.gguf")));
  fs::remove(low);
  fs::resize_file(model_ / "LowNoise/Wan2.2-T2V-A14B-LowNoise-Q8_0.gguf", 100'000);
  EXPECT_THAT(refusal(WAN_INVALID),
              AllOf(HasSubstr("LowNoise-Q8_0.gguf is truncated"), HasSubstr("download it again")));
}

TEST_F(Layout, MissingParts) {
  EXPECT_THAT(refusal(WAN_NOT_FOUND), AllOf(HasSubstr("no checkpoint"), HasSubstr("model_index.json")));
  write_comfyui();
  const fs::path away = directory_.path() / "away";
  for (const auto &[file, what] :
       {std::pair{"text_encoders/umt5_xxl.safetensors", "nor a text encoder; it has"},
        {"vae/wan_2.1_vae.safetensors", "nor a VAE; it has"},
        {"diffusion_models/wan2.2_t2v_low_noise_14B.safetensors",
         "nor a transformer with low_noise in its name"},
        {"tokenizer/tokenizer.json", "put the tokenizer.json of google/umt5-xxl"}}) {
    fs::rename(model_ / file, away);
    EXPECT_THAT(refusal(WAN_NOT_FOUND), HasSubstr(what));
    fs::rename(away, model_ / file);
  }
  fs::remove(model_ / "vae/wan_2.1_vae.safetensors");
  std::ofstream(model_ / "Wan2.1_VAE.pth") << "pickle";
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("nor a VAE"), HasSubstr("Wan2.1_VAE.pth"),
                                          HasSubstr("scripts/convert_wan_to_diffusers.py")));
}

TEST_F(Layout, AmbiguousDirectories) {
  write_comfyui();
  const fs::path experts = model_ / "diffusion_models";
  fs::copy(experts / "wan2.2_t2v_high_noise_14B.safetensors", experts / "other-HighNoise.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("more than one file for the expert for high noise"),
                                          HasSubstr("other-HighNoise.safetensors")));
  fs::rename(experts / "other-HighNoise.safetensors", experts / "other.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("neither high_noise nor low_noise"), HasSubstr("other"),
                                          HasSubstr("move it to another directory")));
  fs::remove(experts / "other.safetensors");
  fs::copy(model_ / "vae/wan_2.1_vae.safetensors", model_ / "again.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("the VAE"), HasSubstr("again.safetensors")));
}

TEST_F(Layout, ExpertsAreToldApartByTheWordsOfTheirNames) {
  write_comfyui();
  fs::path high = model_ / "diffusion_models/wan2.2_t2v_high_noise_14B.safetensors",
           low = model_ / "diffusion_models/wan2.2_t2v_low_noise_14B.safetensors";
  for (const auto &[new_high, new_low] :
       {std::pair{"Wan2_2-T2V-A14B-HIGH_fp8_e4m3fn_scaled_KJ", "Wan2_2-T2V-A14B-LOW_fp8_e4m3fn_scaled_KJ"},
        {"Wan2.2-T2V-A14B-HighNoise-Q8", "Wan2.2-T2V-A14B-LowNoise-Q8"},
        {"wan22_t2vHigh_v2", "wan22_t2vLow_v2"},
        {"WAN-T2VHigh", "WAN-T2VLow"},
        {"wan_high", "wan_low"},
        {"t2v high noise", "t2v low noise"},
        {"noise-high.flow", "noise-low.highres"},
        {"wan_high_noise_low_vram", "wan_low_noise_high_quality"}}) {
    const auto rename = [](fs::path &file, const std::string &stem) {
      const fs::path renamed = file.parent_path() / (stem + ".safetensors");
      fs::rename(file, renamed);
      file = renamed;
    };
    rename(high, new_high);
    rename(low, new_low);
    const CheckpointConfig config = CheckpointConfig::read(model_);
    EXPECT_EQ(config.files.at("transformer").stem, new_high);
    EXPECT_EQ(config.files.at("transformer_2").stem, new_low);
  }
}

TEST_F(Layout, ExpertsThatCannotBeToldApartAreToBeRenamed) {
  write_comfyui();
  const fs::path experts = model_ / "diffusion_models";
  fs::rename(experts / "wan2.2_t2v_high_noise_14B.safetensors", experts / "slow.safetensors");
  fs::rename(experts / "wan2.2_t2v_low_noise_14B.safetensors", experts / "highway.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("slow.safetensors"), HasSubstr("highway.safetensors"),
                                          HasSubstr("put high_noise into the name of one")));
}

TEST_F(Layout, ModelsOfOtherTasksBesideOneOfTextToVideoDoNotCount) {
  write_comfyui();
  const fs::path experts = model_ / "diffusion_models";
  const fs::path low = experts / "wan2.2_t2v_low_noise_14B.safetensors";
  Tensors other = renamed(experts_.at("transformer_2"), Naming::kOriginalTransformer);
  other["patch_embedding.weight"] = at::zeros({256, 36, 1, 2, 2});
  for (const char *name : {"wan2.2_i2v_high_noise_14B", "wan2.2_i2v_low_noise_14B", "i2v"})
    write_safetensors(experts / (std::string(name) + ".safetensors"), other);
  EXPECT_EQ(CheckpointConfig::read(model_).files.at("transformer_2").path(), low.string());
  // But where one of the two is missing, an error says what the others are.
  fs::remove(low);
  EXPECT_THAT(refusal(WAN_INVALID),
              AllOf(HasSubstr("wan2.2_i2v_low_noise_14B.safetensors is a transformer for image to video"),
                    HasSubstr("in_channels are 36, not 16")));
  fs::remove(experts / "wan2.2_t2v_high_noise_14B.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID),
              HasSubstr("i2v.safetensors has neither high_noise nor low_noise in its name"));
}

TEST_F(Layout, TheVaeOfTheSmallModelBesideA14bsDoesNotCount) {
  write_comfyui();
  Tensors small = renamed(vae_, Naming::kOriginalVae);
  small["conv2.weight"] = at::zeros({48, 48, 1, 1, 1});
  write_safetensors(model_ / "vae/wan2.2_vae.safetensors", small);
  EXPECT_EQ(CheckpointConfig::read(model_).files.at("vae").stem, "wan_2.1_vae");
  fs::rename(model_ / "vae/wan_2.1_vae.safetensors", directory_.path() / "away");
  write_safetensors(model_ / "vae/another.safetensors", small);
  EXPECT_THAT(refusal(WAN_INVALID), HasSubstr("48 latent channels"));
}

TEST_F(Layout, FilesOfOthersDoNotStopACompleteModel) {
  write_comfyui();
  const auto tensor = [](const std::string &dtype, const std::string &shape) {
    const std::string header =
        R"({"a":{"dtype":")" + dtype + R"(","shape":[)" + shape + R"(],"data_offsets":[0,4]}})";
    std::string bytes(sizeof(uint64_t), '\0');
    bytes[0] = static_cast<char>(header.size());
    return bytes + header + "abcd";
  };
  for (const std::string &bytes :
       {tensor("F8_E8M0", "4"), tensor("F4", "8"), tensor("F1000", "4"), std::string(20, '\0'), std::string(),
        std::string("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")}) {
    std::ofstream(model_ / "vae/other.safetensors", std::ios::binary) << bytes;
    EXPECT_EQ(refusal(WAN_OK), "accepted") << bytes;
  }
  std::ofstream(model_ / "vae/broken.safetensors.index.json") << "{";
  fs::create_directory(model_ / "text_encoders/directory.safetensors");
  EXPECT_EQ(refusal(WAN_OK), "accepted");
  fs::remove(model_ / "vae/wan_2.1_vae.safetensors");
  EXPECT_THAT(refusal(WAN_INVALID), AllOf(HasSubstr("nor a VAE that can be read"),
                                          HasSubstr("vae/other.safetensors"), HasSubstr("Git LFS pointer")));
}

TEST_F(Layout, ShardsThatAreMissingAreNamed) {
  write_comfyui();
  const fs::path experts = model_ / "diffusion_models";
  // As published by ModelScope: what is there has another name than the index says.
  fs::rename(experts / "wan2.2_t2v_low_noise_14B.safetensors",
             experts / "low_noise-00001-of-00002-bf16.safetensors");
  std::ofstream(experts / "low_noise.safetensors.index.json")
      << R"({"weight_map":{"a":"low_noise-00001-of-00002.safetensors","b":"low_noise-00002-of-00002.safetensors"}})";
  EXPECT_THAT(
      refusal(WAN_INVALID),
      AllOf(HasSubstr("nor a transformer with low_noise in its name that can be read"),
            HasSubstr("no file low_noise-00001-of-00002.safetensors, low_noise-00002-of-00002.safetensors")));
}

TEST_F(Layout, ATextEncoderThatHasItsEmbeddingUnderTheOtherName) {
  write_comfyui();
  text_encoder_["encoder.embed_tokens.weight"] = text_encoder_["shared.weight"];
  text_encoder_.erase("shared.weight");
  write_safetensors(model_ / "text_encoders/umt5_xxl.safetensors", text_encoder_);
  expect_same_video();
}

TEST_F(Layout, ArchitecturesThatAreNotSupported) {
  write_comfyui();
  const fs::path high = model_ / "diffusion_models/wan2.2_t2v_high_noise_14B.safetensors";
  const Tensors original = read_safetensors(high);
  const auto with = [&](const std::string &name, const at::Tensor &tensor) {
    Tensors changed = original;
    changed[name] = tensor;
    write_safetensors(high, changed);
    return refusal(WAN_INVALID);
  };
  EXPECT_THAT(with("patch_embedding.weight", at::zeros({256, 36, 1, 2, 2})), HasSubstr("in_channels"));
  EXPECT_THAT(with("patch_embedding.weight", at::zeros({255, 16, 1, 2, 2})), HasSubstr("multiple of 128"));
  EXPECT_THAT(with("patch_embedding.weight", at::zeros({256, 16})), HasSubstr("patch_embedding.weight"));
  EXPECT_THAT(with("patch_embedding.weight", at::zeros({256, 0, 1, 2, 2})),
              HasSubstr("patch_embedding.weight"));
  EXPECT_THAT(with("blocks.0.cross_attn.k_img.weight", at::zeros({256, 256})), HasSubstr("image_dim"));
  EXPECT_THAT(with("blocks.7.modulation", at::zeros({1, 6, 256})), HasSubstr("unexpected tensor"));
  EXPECT_THAT(with("blocks.0.self_attn.q.scale_weight", at::zeros({1})), HasSubstr("unexpected tensor"));
  write_safetensors(high, original);
  Tensors vae = renamed(vae_, Naming::kOriginalVae);
  vae["conv2.weight"] = at::zeros({48, 48, 1, 1, 1});
  write_safetensors(model_ / "vae/wan_2.1_vae.safetensors", vae);
  EXPECT_THAT(refusal(WAN_INVALID), HasSubstr("48 latent channels"));
}

TEST_F(Layout, AFileIsNoDirectory) {
  write_comfyui();
  try {
    load_model((model_ / "vae/wan_2.1_vae.safetensors").string(), "cpu");
    FAIL() << "accepted";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_INVALID);
    EXPECT_THAT(failure.message, HasSubstr("is a file"));
  }
}

}  // namespace
}  // namespace wan::test
