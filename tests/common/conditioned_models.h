// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Small checkpoints of the models that see pictures, which tests/parity/make_conditioned_reference.py ran in
// Diffusers.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "common/reference.h"
#include "common/write_safetensors.h"

namespace wan::test {

/// A name of conditioned/configs.json: "i2v-a14b", "ti2v-5b", "i2v-21" or "flf2v-21".
class ConditionedModel {
 public:
  /// Writes the checkpoint in Diffusers' format below `directory`, which is not there.
  ConditionedModel(std::string name, std::filesystem::path directory)
      : name_(std::move(name)), directory_(std::move(directory)) {
    std::filesystem::create_directories(directory_);
    std::ifstream(source_path("tests/parity/conditioned/configs.json")) >> configs_;
    configs_ = configs_.at(name_);
    write_json("model_index.json", configs_.at("model_index"));
    write_json("scheduler/scheduler_config.json", configs_.at("scheduler"));
    write_transformer("transformer", transformer());
    if (name_ == "i2v-a14b") write_transformer("transformer_2", with_blocks_changed(transformer()));
    link("tokenizer", "models/wan-tiny/tokenizer");
    link("text_encoder", "models/wan-tiny/text_encoder");
    copy("vae", name_ == "ti2v-5b" ? "tests/parity/vae48" : "models/wan-tiny/vae");
    if (configs_.contains("image_encoder")) copy("image_encoder", "tests/parity/clip");
  }

  const std::filesystem::path &directory() const { return directory_; }
  const nlohmann::json &configs() const { return configs_; }

  /// Those that the model has of the weights that all share.
  Tensors transformer() const {
    const bool small = name_ == "ti2v-5b";
    const Tensors whole = read_safetensors(
        source_path("tests/parity/conditioned/" + std::string(small ? "ti2v" : "i2v") + ".safetensors"));
    Tensors own;
    for (const auto &[tensor, values] : whole) {
      const auto contains = [&tensor](const char *part) { return tensor.find(part) != std::string::npos; };
      const bool of_image =
          contains("image_embedder") || contains("add_k") || contains("add_v") || contains("added_k");
      const bool left_out =
          (of_image && !configs_.contains("image_encoder")) || (contains("pos_embed") && name_ != "flf2v-21");
      if (!left_out) own[tensor] = values;
    }
    return own;
  }
  static Tensors with_blocks_changed(const Tensors &tensors) {
    Tensors changed;
    for (const auto &[name, values] : tensors) {
      std::string other = name;
      if (name.starts_with("blocks.")) other[7] = name[7] == '0' ? '1' : '0';
      changed[other] = values;
    }
    return changed;
  }

 private:
  void write_json(const std::filesystem::path &file, const nlohmann::json &json) const {
    std::filesystem::create_directories((directory_ / file).parent_path());
    std::ofstream(directory_ / file) << json;
  }
  void write_transformer(const std::string &component, const Tensors &tensors) const {
    write_json(component + "/config.json", configs_.at("transformer"));
    write_safetensors(directory_ / component / "diffusion_pytorch_model.safetensors", tensors);
  }
  /// For tests that change it.
  void copy(const std::string &component, const std::string &source) const {
    std::filesystem::copy(source_path(source), directory_ / component);
  }
  void link(const std::string &component, const std::string &source) const {
    std::filesystem::create_directory_symlink(source_path(source), directory_ / component);
  }

  const std::string name_;
  const std::filesystem::path directory_;
  nlohmann::json configs_;
};

}  // namespace wan::test
