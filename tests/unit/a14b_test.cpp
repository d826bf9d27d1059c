// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A checkpoint of the released A14B's true widths, sharded as it is released, with few layers and random
// weights: it loads from files and runs to pixels.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/engine.h"
#include "common/reference.h"
#include "common/temporary_directory.h"
#include "text/umt5_encoder.h"
#include "transformer/wan_transformer_3d.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan::test {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

template <typename Model, typename Config>
std::vector<WeightRequest> inventory_of(const Config &config) {
  WeightInventory inventory;
  const Model model(config, Weights(inventory, at::kFloat));
  return inventory.requests();
}

/// Writes bfloat16 numbers of deviation 0.02. Of large tensors only the beginning: the rest is a hole that
/// reads as zeros, which the embedding's rows of tokens that never occur may well be.
void write_random(std::ofstream &file, int64_t count) {
  static const at::Tensor block = (at::randn({1 << 20}) * 0.02).to(at::kBFloat16);
  constexpr int64_t kHoleAbove = 500'000'000;
  const int64_t written = count > kHoleAbove ? 512 * 4096 : count;
  for (int64_t done = 0; done < written; done += block.numel())
    file.write(static_cast<const char *>(block.const_data_ptr()),
               2 * static_cast<std::streamsize>(std::min(block.numel(), written - done)));
  file.seekp(2 * (count - written), std::ios::cur);
}

void write_shard(const fs::path &path, const std::vector<WeightRequest> &tensors, size_t first, size_t last) {
  Json header;
  int64_t position = 0;
  for (size_t i = first; i < last; ++i) {
    const int64_t bytes = 2 * c10::multiply_integers(tensors[i].shape);
    header[tensors[i].name] = {
        {"dtype", "BF16"}, {"shape", tensors[i].shape}, {"data_offsets", {position, position + bytes}}};
    position += bytes;
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char *>(&length), sizeof(length));
  file << text;
  for (size_t i = first; i < last; ++i) write_random(file, c10::multiply_integers(tensors[i].shape));
  file.close();
  fs::resize_file(path, sizeof(length) + length + static_cast<uint64_t>(position));
}

void write_component(const fs::path &directory, const std::string &stem,
                     const std::vector<WeightRequest> &tensors, size_t shards) {
  fs::create_directories(directory);
  Json weight_map;
  for (size_t shard = 0; shard < shards; ++shard) {
    const std::string name = stem + "-" + std::to_string(shard) + ".safetensors";
    const size_t count = tensors.size(), first = count * shard / shards, last = count * (shard + 1) / shards;
    write_shard(directory / name, tensors, first, last);
    for (size_t i = first; i < last; ++i) weight_map[tensors[i].name] = name;
  }
  std::ofstream(directory / (stem + ".safetensors.index.json")) << Json{{"weight_map", weight_map}};
}

void write_json(const fs::path &path, const Json &json) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << json;
}

Json read_json(const fs::path &path) {
  std::ifstream file(path);
  return Json::parse(file);
}

void write_a14b(const fs::path &model, int64_t layers) {
  const fs::path tiny = tiny_model();
  fs::create_directories(model);
  for (const char *same : {"model_index.json", "scheduler", "tokenizer"})
    fs::copy(tiny / same, model / same, fs::copy_options::recursive);
  // Every width is the class's default.
  const Json transformer = {{"_class_name", "WanTransformer3DModel"}, {"num_layers", layers}};
  const Json text = {{"model_type", "umt5"}, {"num_layers", layers}};
  Json vae = read_json(tiny / "vae/config.json");
  vae["base_dim"] = 96;
  for (const char *component : {"transformer", "transformer_2"})
    write_json(model / component / "config.json", transformer);
  write_json(model / "text_encoder/config.json", text);
  write_json(model / "vae/config.json", vae);

  const CheckpointConfig config = CheckpointConfig::read(model);
  const std::string stem = "diffusion_pytorch_model";
  write_component(model / "transformer", stem, inventory_of<WanTransformer3DModel>(config.transformer), 3);
  for (const auto &file : fs::directory_iterator(model / "transformer"))
    if (file.path().filename() != "config.json")
      fs::create_hard_link(file.path(), model / "transformer_2" / file.path().filename());
  write_component(model / "text_encoder", "model", inventory_of<UMT5EncoderModel>(config.text_encoder), 2);
  write_component(model / "vae", stem, inventory_of<AutoencoderKLWan>(config.vae), 1);
}

TEST(A14B, OfTrueWidthLoadsAndRunsToPixels) {
  const c10::InferenceMode inference;
  const TemporaryDirectory directory;
  write_a14b(directory.path() / "model", /*layers=*/1);
  const Model model =
      load_model((directory.path() / "model").string(), test_device_name(), WAN_DTYPE_BFLOAT16);
  WanGenerateOptions options = tiny_options();
  options.layout = packed_layout(WAN_PIXEL_RGB, 32, 32);
  options.num_frames = 5;
  options.steps = 2;
  const at::Tensor pixels = generate_clip(model, options);
  EXPECT_EQ(pixels.sizes(), (std::vector<int64_t>{5, 32 * 32 * 3}));
  EXPECT_GT(pixels.to(at::kFloat).std().item<double>(), 0.0);
}

}  // namespace
}  // namespace wan::test
