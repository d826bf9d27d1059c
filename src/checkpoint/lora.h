// SPDX-License-Identifier: LGPL-2.1-or-later
//
// LoRAs: low-rank additions to an expert's weights, merged when these are loaded.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/tensor_file.h"
#include "checkpoint/weights.h"

namespace wan {

/// A LoRA file, and how much of it each expert gets; 0: nothing.
struct Lora {
  TensorFile file;
  double strength, strength_2;  // for transformer and for transformer_2

  /// Throws wan::Error: WAN_NOT_FOUND, WAN_INVALID.
  Lora(const std::filesystem::path &path, double strength, double strength_2);
  double strength_for(const std::string &component) const;
};

/// One term that is added to a weight: scale * up @ down, of [out, rank] and [rank, in], or scale * diff, of
/// the weight's shape. The tensors are read when they are merged.
struct LoraChange {
  double scale;
  const TensorFile *file;
  std::string up = {}, down = {}, diff = {};  // keys of the file
};
using LoraChanges = std::map<std::string, std::vector<LoraChange>>;  // by tensor

/// The weights of an expert with LoRAs merged into them: to a weight W is added
///
///     strength * (alpha / rank * up @ down + diff)
///
/// of every LoRA, in float32 on the weight's device, and the sum is rounded once. A LoRA without an alpha has
/// that of its adapter metadata (as Diffusers writes it), else the rank.
///
/// The keys of a file are those of PEFT and Diffusers ("transformer.blocks.0.attn1.to_q.lora_A.weight"), of
/// kohya's trainers ("lora_unet_blocks_0_self_attn_q.lora_down.weight"), of ComfyUI and LightX2V
/// ("diffusion_model.blocks.0.self_attn.q.lora_down.weight", ".diff", ".diff_b", ".diff_m") or of DiffSynth
/// ("pipe.dit.…"), see lora_keys.cpp. Where a file has keys that begin with "transformer_2.", those of
/// "transformer." are for transformer alone. What is for the image that another model sees is left out, with
/// a warning.
class LoraWeights : public WeightSource {
 public:
  /// component: "transformer" or "transformer_2"; shapes: of all tensors of the source. Throws wan::Error
  /// (WAN_INVALID), naming file and keys, where a key is for none of them, where one lacks its other half, or
  /// where shapes do not fit.
  LoraWeights(std::unique_ptr<WeightSource> source, const TensorShapes &shapes,
              const std::vector<Lora> &loras, const std::string &component);

  void expect(const std::vector<WeightRequest> &requests) override { source_->expect(requests); }
  at::Tensor load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) override;
  /// Nothing for a tensor that a LoRA changes.
  std::optional<ScaledFp8> load_fp8(const std::string &name, at::IntArrayRef shape) override {
    return changes_.contains(name) ? std::nullopt : source_->load_fp8(name, shape);
  }
  std::optional<BlockMatrix> load_blocks(const std::string &name, at::IntArrayRef shape) override {
    return changes_.contains(name) ? std::nullopt : source_->load_blocks(name, shape);
  }
  void check_all_loaded(const std::vector<std::string> &ignored) const override {
    source_->check_all_loaded(ignored);
  }
  /// For the user: a sentence for each LoRA of which a part is left out.
  const std::set<std::string> &warnings() const { return warnings_; }

 private:
  const std::unique_ptr<WeightSource> source_;
  std::list<TensorFile> files_;  // of the changes
  LoraChanges changes_;
  std::set<std::string> warnings_;
};

}  // namespace wan
