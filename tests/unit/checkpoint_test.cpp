// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Loading through the C interface: damaged copies of the embedded model are refused with the right kind and
// sentence.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "device.h"

namespace wan::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

constexpr const char *kWeights = "transformer/diffusion_pytorch_model.safetensors";

/// A safetensors file in memory, to be changed and written again.
struct EditableFile {
  explicit EditableFile(const fs::path &path) {
    std::ifstream file(path, std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    uint64_t length;
    std::memcpy(&length, bytes.data(), sizeof(length));
    header = Json::parse(bytes.substr(sizeof(length), length));
    data = bytes.substr(sizeof(length) + length);
  }
  void write(const fs::path &path) const {
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char *>(&length), sizeof(length));
    file << text << data;
  }

  Json header;
  std::string data;
};

class Checkpoint : public testing::Test {
 protected:
  Checkpoint() { fs::copy(tiny_model(), model_, fs::copy_options::recursive); }

  template <typename Change>
  void edit_json(const std::string &name, Change change) const {
    const fs::path path = model_ / name;
    std::ifstream file(path);
    Json json = Json::parse(file);
    file.close();
    change(json);
    std::ofstream(path) << json;
  }
  template <typename Change>
  void edit_weights(Change change) const {
    EditableFile file(model_ / kWeights);
    change(file);
    file.write(model_ / kWeights);
  }
  /// Makes all values of a tensor NaN, in bfloat16 and in float32.
  void spoil(const std::string &weights, const std::string &tensor) const {
    EditableFile file(model_ / weights);
    const size_t begin = file.header[tensor]["data_offsets"][0], end = file.header[tensor]["data_offsets"][1];
    for (size_t at = begin; at < end; at += 2) file.data.replace(at, 2, "\xC0\x7F");
    file.write(model_ / weights);
  }
  /// What generate() says of a small clip.
  std::string failure_of_a_clip() const {
    const Model model = load_model(model_.string(), "cpu");
    WanGenerateOptions options = tiny_options();
    options.layout = packed_layout(WAN_PIXEL_RGB, 32, 32);
    options.num_frames = options.steps = 1;
    try {
      generate_clip(model, options);
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, WAN_INVALID);
      return failure.message;
    }
    return "made";
  }
  /// What describe() says, which reads no weights.
  std::string description() const {
    WanDefaults defaults;
    WanError error;
    const WanStatus status = api().describe(model_.c_str(), &defaults, &error);
    if (status == WAN_OK) return "accepted";
    EXPECT_EQ(status, WAN_INVALID) << error.message;
    return error.message;
  }
  /// The same with one value changed for the while.
  std::string description_with(const std::string &name, const std::string &key, const Json &value) const {
    Json before;
    edit_json(name, [&](Json &json) {
      before = json;
      json[key] = value;
    });
    const std::string said = description();
    edit_json(name, [&](Json &json) { json = before; });
    return said;
  }
  std::string refusal(WanStatus expected = WAN_INVALID) const {
    try {
      load_model(model_.string(), "cpu");
    } catch (const Failure &failure) {
      EXPECT_EQ(failure.status, expected) << failure.message;
      return failure.message;
    }
    return "accepted";
  }

  const TemporaryDirectory directory_;
  const fs::path model_ = directory_.path() / "model";
};

TEST_F(Checkpoint, ACopyLoads) {
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(Checkpoint, MissingDirectoryAndFiles) {
  fs::rename(model_, directory_.path() / "away");
  EXPECT_THAT(refusal(WAN_NOT_FOUND), AllOf(HasSubstr("no model directory"), HasSubstr("model")));
  fs::create_directory(model_);
  EXPECT_THAT(refusal(WAN_NOT_FOUND), HasSubstr("no checkpoint"));
  fs::remove(model_);
  fs::rename(directory_.path() / "away", model_);
  for (const std::string file : {"vae/config.json", "text_encoder/model.safetensors",
                                 "tokenizer/tokenizer.json", "scheduler/scheduler_config.json", kWeights}) {
    fs::rename(model_ / file, directory_.path() / "away");
    EXPECT_THAT(refusal(WAN_NOT_FOUND), HasSubstr(file));
    fs::rename(directory_.path() / "away", model_ / file);
  }
}

TEST_F(Checkpoint, PicklesAreNotRead) {
  const fs::path pickle = model_ / "transformer/diffusion_pytorch_model.bin";
  fs::rename(model_ / kWeights, pickle);
  EXPECT_THAT(refusal(), AllOf(HasSubstr(pickle.string()), HasSubstr("pickles"),
                               HasSubstr("scripts/convert_wan_to_diffusers.py")));
}

TEST_F(Checkpoint, WrongClasses) {
  edit_json("model_index.json", [](Json &json) { json["_class_name"] = "StableDiffusionPipeline"; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("model_index.json"), HasSubstr("StableDiffusionPipeline")));
  edit_json("model_index.json", [](Json &json) {
    json["_class_name"] = "WanPipeline";
    json["vae"][1] = "AutoencoderKL";
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'vae'"), HasSubstr("AutoencoderKL")));
  edit_json("model_index.json", [](Json &json) { json["vae"] = nullptr; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'vae'"), HasSubstr("missing")));
}

TEST_F(Checkpoint, BadConfigurationValuesNameFileAndKey) {
  edit_json("transformer/config.json", [](Json &json) { json["num_layers"] = -1; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("transformer/config.json"), HasSubstr("'num_layers'")));
  edit_json("transformer/config.json", [](Json &json) { json["num_layers"] = "four"; });
  EXPECT_THAT(refusal(), HasSubstr("'num_layers'"));
  edit_json("transformer/config.json", [](Json &json) {
    json["num_layers"] = 4;
    json["image_dim"] = 1280;
  });
  EXPECT_THAT(refusal(), HasSubstr("'image_dim'"));
  edit_json("transformer/config.json", [](Json &json) { json["image_dim"] = nullptr; });
  edit_json("vae/config.json", [](Json &json) { json["latents_std"] = {1, 2}; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("vae/config.json"), HasSubstr("'latents_std'")));
  for (const double factor : {4.5, 1e20}) {
    edit_json("vae/config.json", [factor](Json &json) { json["dim_mult"] = {1, 2, 4, factor}; });
    EXPECT_THAT(refusal(), HasSubstr("'dim_mult' must hold whole numbers"));
  }
}

TEST_F(Checkpoint, NumbersOutOfRangeNameFileAndKeyBeforeWeightsAreRead) {
  const std::string scheduler = "scheduler/scheduler_config.json", transformer = "transformer/config.json";
  const std::string vae = "vae/config.json", text_encoder = "text_encoder/config.json";
  const std::vector<double> huge(16, 1e300), nothing(16, 0);
  const std::tuple<std::string, std::string, Json> examples[] = {
      {scheduler, "flow_shift", 1e6},
      {scheduler, "flow_shift", 1e-300},
      {scheduler, "flow_shift", -3},
      {scheduler, "num_train_timesteps", 2},
      {scheduler, "num_train_timesteps", 1 << 20},
      {"gst-wan.json", "guidance_scale", 1e300},
      {"gst-wan.json", "guidance_scale", 1e9},
      {"gst-wan.json", "guidance_scale", -1},
      {"gst-wan.json", "guidance_scale_2", -2},
      {"gst-wan.json", "framerate", "2147483647/1"},
      {"gst-wan.json", "framerate", "1/2147483647"},
      {"gst-wan.json", "framerate", "99999999999/6000000000"},
      {"gst-wan.json", "framerate", "16/1 "},
      {"gst-wan.json", "framerate", "16"},
      {"gst-wan.json", "steps", 0},
      {"model_index.json", "boundary_ratio", 2},
      {"model_index.json", "boundary_ratio", -0.1},
      {transformer, "eps", 1e300},
      {transformer, "eps", 0},
      {transformer, "rope_max_seq_len", 1 << 20},
      {transformer, "num_layers", 1001},
      {transformer, "num_attention_heads", 1 << 20},
      {transformer, "attention_head_dim", 1 << 20},
      {transformer, "ffn_dim", int64_t{1} << 40},
      {transformer, "qk_norm", "layer_norm"},
      {vae, "base_dim", 1 << 20},
      {vae, "latents_mean", huge},
      {vae, "latents_std", huge},
      {vae, "latents_std", nothing},
      {vae, "decoder_base_dim", 1 << 20},
      {vae, "patch_size", 9},
      {vae, "in_channels", 12},
      {vae, "out_channels", 12},
      {vae, "scale_factor_spatial", 16},
      {vae, "scale_factor_temporal", 8},
      {text_encoder, "num_heads", 1 << 20},
      {text_encoder, "layer_norm_epsilon", 1e300},
  };
  for (const auto &[file, key, value] : examples) {
    const std::string named = key == "attention_head_dim" ? "num_attention_heads" : key;
    EXPECT_THAT(description_with(file, key, value), AllOf(HasSubstr(file + ": '" + named + "'"))) << value;
  }
  edit_json(vae, [](Json &json) { json["dim_mult"] = {1, 1, 1, 1}; });
  EXPECT_THAT(description_with(vae, "base_dim", 1), HasSubstr("vae/config.json: 'base_dim'"));
}

VaeConfig parse_vae(const Json &changes = Json::object()) {
  Json json = {
      {"_class_name", "AutoencoderKLWan"}, {"z_dim", 2}, {"latents_mean", {0, 0}}, {"latents_std", {1, 1}}};
  json.update(changes);
  return VaeConfig::parse(JsonFile(std::string_view(json.dump()), "vae/config.json"));
}

TEST(VaeConfig, OfTheSmallAndTheLargeVae) {
  const VaeConfig small = parse_vae();
  EXPECT_EQ(small.decoder_dims(), (std::vector<int64_t>{384, 384, 192, 96}));
  EXPECT_EQ(small.encoder_dims(), (std::vector<int64_t>{96, 192, 384, 384}));
  EXPECT_EQ(small.spatial_scale(), 8);
  EXPECT_EQ(small.picture_channels(), 3);
  const VaeConfig large = parse_vae({{"is_residual", true},
                                     {"patch_size", 2},
                                     {"in_channels", 12},
                                     {"out_channels", 12},
                                     {"base_dim", 160},
                                     {"decoder_base_dim", 256},
                                     {"scale_factor_spatial", 16}});
  EXPECT_EQ(large.decoder_dims(), (std::vector<int64_t>{1024, 1024, 512, 256}));
  EXPECT_EQ(large.encoder_dims(), (std::vector<int64_t>{160, 320, 640, 640}));
  EXPECT_EQ(large.spatial_scale(), 16);
  EXPECT_EQ(large.picture_channels(), 12);
}

TEST(VaeConfig, ShortcutsThatCannotBeAreRefused) {
  const std::vector<std::vector<int>> refused = {
      {3, 6, 6, 6}, {1, 3, 3, 3}, {4, 2, 2, 2}, {1, 2, 4, 8}, {1, 8, 8, 8}};
  for (const auto &dim_mult : refused)
    EXPECT_THROW(parse_vae({{"is_residual", true}, {"dim_mult", dim_mult}}), Error);
  EXPECT_NO_THROW(parse_vae({{"is_residual", true}, {"dim_mult", {1, 4, 8, 8}}}));
}

TEST_F(Checkpoint, SettingsThatTheirFileDoesNotHaveAreNamed) {
  for (const std::string key : {"flow_shift", "fps", "negative_prompt", "framerat"})
    EXPECT_THAT(description_with("gst-wan.json", key, 8),
                HasSubstr("gst-wan.json: '" + key +
                          "' is not known; the keys are width, height, num_frames, framerate, steps, "
                          "guidance_scale, guidance_scale_2"));
  EXPECT_THAT(description_with("gst-wan.json", "guidance_scale", "2.5"), HasSubstr("'guidance_scale'"));
  EXPECT_THAT(description_with("gst-wan.json", "guidance_scale", true), HasSubstr("'guidance_scale'"));
}

TEST_F(Checkpoint, WhatItSuggestsItMustBeAbleToMake) {
  EXPECT_THAT(description_with("gst-wan.json", "num_frames", 4),
              AllOf(HasSubstr("suggests what it cannot make"), HasSubstr("number of frames, 4,")));
  EXPECT_THAT(description_with("gst-wan.json", "num_frames", 1 << 20), HasSubstr("suggests"));
  EXPECT_THAT(description_with("gst-wan.json", "width", 1 << 20), HasSubstr("the model takes up to 16384"));
  edit_json("gst-wan.json", [](Json &json) { json["steps"] = 101; });
  EXPECT_THAT(description_with("scheduler/scheduler_config.json", "num_train_timesteps", 100),
              HasSubstr("steps=101 is not in 1 to 100"));
}

TEST_F(Checkpoint, NamesFromFilesAreEscapedAndShortened) {
  std::ofstream(model_ / "gst-wan.json") << "{\"\\u001b[2J\": 1, \"\\u001b[2J\": 1}";
  EXPECT_THAT(description(), HasSubstr("has the key '\\x1B[2J' twice"));
  std::ofstream(model_ / "gst-wan.json") << "{\"" << std::string(1 << 20, 'x') << "\": 1}";
  EXPECT_THAT(description(), AllOf(HasSubstr("xxx…' is not known"), HasSubstr("guidance_scale_2")));
  std::ofstream(model_ / "gst-wan.json") << "{\"\033[31m";
  EXPECT_THAT(description(), testing::Not(HasSubstr("\033")));
}

TEST_F(Checkpoint, WeightsThatAreNotFiniteMakeNoPicture) {
  const auto spoiled = [this](const std::string &weights, const std::string &tensor) {
    fs::copy(model_ / weights, directory_.path() / "good", fs::copy_options::overwrite_existing);
    spoil(weights, tensor);
    const std::string vae = "vae/";
    const std::string said = weights.starts_with(vae) ? refusal() : failure_of_a_clip();
    fs::copy(directory_.path() / "good", model_ / weights, fs::copy_options::overwrite_existing);
    EXPECT_THAT(said, AllOf(HasSubstr(weights), HasSubstr("not finite")));
    return said;
  };
  EXPECT_THAT(spoiled(kWeights, "proj_out.bias"), HasSubstr("transformer_2"));
  spoiled("text_encoder/model.safetensors", "encoder.final_layer_norm.weight");
  EXPECT_THAT(spoiled("vae/diffusion_pytorch_model.safetensors", "decoder.conv_out.bias"),
              HasSubstr("'decoder.conv_out.bias'"));
  EXPECT_EQ(failure_of_a_clip(), "made");
}

TEST_F(Checkpoint, TruncatedJson) {
  std::ofstream(model_ / "vae/config.json") << "{\"_class_name\": ";
  EXPECT_THAT(refusal(), AllOf(HasSubstr("vae/config.json"), HasSubstr("not valid JSON")));
}

TEST_F(Checkpoint, TruncatedWeights) {
  fs::resize_file(model_ / kWeights, fs::file_size(model_ / kWeights) - 100);
  EXPECT_THAT(refusal(), AllOf(HasSubstr(kWeights), HasSubstr("truncated")));
  fs::resize_file(model_ / kWeights, 0);
  EXPECT_THAT(refusal(), AllOf(HasSubstr(kWeights), HasSubstr("too short")));
}

TEST_F(Checkpoint, MissingMisshapenUnexpectedAndIntegerTensors) {
  const EditableFile original(model_ / kWeights);
  edit_weights([](EditableFile &file) {
    file.header["renamed"] = file.header["proj_out.bias"];
    file.header.erase("proj_out.bias");
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr(kWeights), HasSubstr("lacks the tensor 'proj_out.bias'")));
  original.write(model_ / kWeights);
  edit_weights([](EditableFile &file) {
    const Json shape = file.header["proj_out.weight"]["shape"];
    file.header["proj_out.weight"]["shape"] = {shape[1], shape[0]};
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr(kWeights), HasSubstr("'proj_out.weight' has the shape")));
  original.write(model_ / kWeights);
  edit_weights([](EditableFile &file) {
    const size_t end = file.data.size();
    file.header["extra"] = {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
    file.data += "1234";
  });
  EXPECT_THAT(refusal(), AllOf(HasSubstr(kWeights), HasSubstr("unexpected tensor 'extra'")));
  original.write(model_ / kWeights);
  edit_weights([](EditableFile &file) { file.header["proj_out.bias"]["dtype"] = "I16"; });
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'proj_out.bias'"), HasSubstr("I16")));
}

TEST_F(Checkpoint, AFifoIsNotWaitedFor) {
  for (const std::string file : {"model_index.json", "vae/config.json", "gst-wan.json",
                                 "tokenizer/tokenizer.json", "text_encoder/model.safetensors", kWeights}) {
    fs::rename(model_ / file, directory_.path() / "away");
    ASSERT_EQ(mkfifo((model_ / file).c_str(), 0600), 0);
    EXPECT_THAT(refusal(), AllOf(HasSubstr(file), HasSubstr("is a FIFO")));
    fs::remove(model_ / file);
    fs::rename(directory_.path() / "away", model_ / file);
  }
}

TEST_F(Checkpoint, AGitLfsPointerIsNamed) {
  for (const std::string file : {"vae/config.json", "tokenizer/tokenizer.json", kWeights}) {
    fs::rename(model_ / file, directory_.path() / "away");
    std::ofstream(model_ / file) << "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 999\n";
    EXPECT_THAT(refusal(), AllOf(HasSubstr(file), HasSubstr("Git LFS pointer"), HasSubstr("git lfs pull")));
    fs::rename(directory_.path() / "away", model_ / file);
  }
}

TEST_F(Checkpoint, NamesFromFilesReachNoTerminalRaw) {
  edit_weights([](EditableFile &file) {
    const size_t end = file.data.size();
    file.header["\x1b]0;owned\x07"] = {{"dtype", "F32"}, {"shape", {1}}, {"data_offsets", {end, end + 4}}};
    file.data += "1234";
  });
  EXPECT_THAT(refusal(),
              AllOf(HasSubstr("unexpected tensor"), Not(HasSubstr("\x1b")), Not(HasSubstr("\x07"))));
}

TEST_F(Checkpoint, ATextEncoderThatHasItsEmbeddingUnderTheOtherName) {
  const fs::path path = model_ / "text_encoder/model.safetensors";
  EditableFile file(path);
  file.header["encoder.embed_tokens.weight"] = file.header["shared.weight"];
  file.header.erase("shared.weight");
  file.write(path);
  WanGenerateOptions options = tiny_options();
  options.num_frames = options.steps = 1;
  EXPECT_TRUE(at::equal(generate_clip(load_model(tiny_model(), "cpu"), options),
                        generate_clip(load_model(model_.string(), "cpu"), options)));
}

TEST_F(Checkpoint, WhatTrainingLeavesBehindIsNoWeight) {
  EditableFile file(model_ / "vae/diffusion_pytorch_model.safetensors");
  const auto add = [&file](const char *name, const char *dtype, const Json &shape, size_t bytes) {
    const size_t end = file.data.size();
    file.header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
    file.data.append(bytes, '\0');
  };
  add("global_step", "F32", Json::array(), 4);
  add("decoder.norm.num_batches_tracked", "I64", Json::array(), 8);
  add("model_ema.decay", "F32", {1}, 4);
  add("loss.discriminator.main.0.weight", "F32", {2, 3}, 24);
  add("marker", "F32", {0}, 0);
  file.write(model_ / "vae/diffusion_pytorch_model.safetensors");
  EXPECT_EQ(refusal(), "accepted");
}

TEST_F(Checkpoint, APathMayBeAFileUri) {
  fs::rename(model_, directory_.path() / "a b");
  const std::string uri = "file://" + directory_.path().string() + "/a%20b";
  WanDefaults defaults;
  WanError error;
  EXPECT_EQ(api().describe(uri.c_str(), &defaults, &error), WAN_OK) << error.message;
  EXPECT_TRUE(load_model(uri, "cpu"));
}

TEST_F(Checkpoint, PathsThatCannotBeLookedAtAreErrorsThatNameThem) {
  WanDefaults defaults;
  WanError error;
  EXPECT_EQ(api().describe(std::string(300, 'x').c_str(), &defaults, &error), WAN_INVALID);
  EXPECT_THAT(error.message, AllOf(HasSubstr("xxx"), HasSubstr("name too long")));
  fs::remove(model_ / "model_index.json");
  fs::create_symlink("model_index.json", model_ / "model_index.json");
  EXPECT_THAT(refusal(), AllOf(HasSubstr("model_index.json"), HasSubstr("symbolic links")));
}

TEST_F(Checkpoint, TokenIdsBeyondTheEmbedding) {
  edit_json("tokenizer/tokenizer.json", [](Json &json) {
    Json token = json["added_tokens"][0];
    token["id"] = 512;  // the embedding has rows 0 to 511
    token["content"] = "<beyond>";
    json["added_tokens"].push_back(token);
  });
  const Model model = load_model(model_.string(), "cpu");
  WanGenerateOptions options = tiny_options();
  options.prompt = "a <beyond> circle";
  try {
    generate_clip(model, options);
    FAIL() << "accepted";
  } catch (const Failure &failure) {
    EXPECT_EQ(failure.status, WAN_INVALID);
    EXPECT_THAT(failure.message, AllOf(HasSubstr("tokenizer"), HasSubstr("vocab_size")));
  }
}

TEST_F(Checkpoint, AShardedFloat32CheckpointGivesTheSameVideo) {
  // As the released A14B is stored: shards, an index, float32.
  const TensorFile whole(model_ / kWeights);
  Json weight_map, headers[2];
  std::string data[2];
  size_t count = 0;
  for (const auto &[name, entry] : whole.tensors()) {
    const size_t shard = count++ % 2;
    const at::Tensor tensor = stored_tensor(whole, name).to(at::kFloat);
    const size_t begin = data[shard].size();
    data[shard].append(static_cast<const char *>(tensor.const_data_ptr()), tensor.nbytes());
    headers[shard][name] = {
        {"dtype", "F32"}, {"shape", entry.shape}, {"data_offsets", {begin, data[shard].size()}}};
    weight_map[name] = "part-" + std::to_string(shard) + ".safetensors";
  }
  WanGenerateOptions options = tiny_options();
  options.num_frames = options.steps = 1;
  const at::Tensor expected = generate_clip(load_model(tiny_model(), "cpu"), options);
  EditableFile file(model_ / kWeights);
  fs::remove(model_ / kWeights);
  for (size_t shard = 0; shard < 2; ++shard) {
    file.header = headers[shard];
    file.data = data[shard];
    file.write(model_ / "transformer" / ("part-" + std::to_string(shard) + ".safetensors"));
  }
  std::ofstream(model_ / "transformer/diffusion_pytorch_model.safetensors.index.json")
      << Json{{"metadata", {{"total_size", 1}}}, {"weight_map", weight_map}};
  EXPECT_TRUE(at::equal(expected, generate_clip(load_model(model_.string(), "cpu"), options)));
}

TEST_F(Checkpoint, DefaultsFollowTheArchitectureUnlessTheirFileSaysOtherwise) {
  WanDefaults defaults;
  WanError error;
  ASSERT_EQ(api().describe(model_.c_str(), &defaults, &error), WAN_OK);
  EXPECT_EQ(defaults.width, 160);
  EXPECT_EQ(defaults.num_frames, 33);
  EXPECT_EQ(defaults.guidance_scale_2, defaults.guidance_scale);
  fs::remove(model_ / "gst-wan.json");
  ASSERT_EQ(api().describe(model_.c_str(), &defaults, &error), WAN_OK);
  EXPECT_EQ(defaults.width, 832);
  EXPECT_EQ(defaults.height, 480);
  EXPECT_EQ(defaults.num_frames, 81);
  EXPECT_EQ(defaults.steps, 40);
  EXPECT_EQ(defaults.guidance_scale, 4.0);
  EXPECT_EQ(defaults.guidance_scale_2, 3.0);
  EXPECT_EQ(defaults.flow_shift, 3.0);
  EXPECT_EQ(defaults.size_multiple, 16);
  EXPECT_EQ(defaults.frames_multiple, 4);
}

TEST_F(Checkpoint, ThatWouldRunOnTheCpuHasNoFramesOnTheGpu) {
  if (parse_device("auto").is_cuda()) GTEST_SKIP() << "there is a GPU";
  WanGenerateOptions options = {};
  options.prompt = options.negative_prompt = "";
  options.on_device = true;
  WanError error;
  EXPECT_EQ(wan_engine(WAN_ENGINE_ABI)->check(tiny_model().c_str(), &options, &error), WAN_DEVICE);
}

TEST_F(Checkpoint, DevicesThatAreNotThere) {
  EXPECT_EQ(wan_engine(WAN_ENGINE_ABI + 1), nullptr);
  const auto failure_on = [](const char *device) -> Failure {
    try {
      load_model(tiny_model(), device);
    } catch (const Failure &failure) {
      return failure;
    }
    return {WAN_OK, ""};
  };
  EXPECT_EQ(failure_on("vulkan").status, WAN_INVALID);
  EXPECT_EQ(failure_on("cuda:x").status, WAN_INVALID);
  EXPECT_EQ(failure_on("cuda:-1").status, WAN_INVALID);
  const Failure absent = failure_on("cuda:99");
  EXPECT_EQ(absent.status, WAN_DEVICE);
  EXPECT_THAT(absent.message, HasSubstr("cuda:99"));
}

}  // namespace
}  // namespace wan::test
