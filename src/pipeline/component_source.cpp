// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/component_source.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "checkpoint/pickle.h"
#include "image/clip_vision.h"
#include "vae/autoencoder_kl_wan.h"

namespace wan {

namespace {

class CheckpointComponents : public ComponentSource {
 public:
  CheckpointComponents(const CheckpointConfig &config, std::vector<Lora> loras, const RunContext &context,
                       std::function<void(uint64_t, uint64_t)> progress)
      : files_(config.files),
        ignored_(unused_tensors(config)),
        loras_(std::move(loras)),
        progress_(std::move(progress)) {
    std::vector<std::string> components = {"text_encoder", "transformer", "vae"};
    if (config.transformer_2) components.push_back("transformer_2");
    if (config.image_encoder) components.push_back("image_encoder");
    if (config.tiny_decoder) components.push_back("tiny_decoder");
    for (const Lora &lora : loras_)
      if (!config.transformer_2 && lora.strength == 0 && lora.strength_2 != 0)
        throw invalid("The LoRA " + lora.file.path() + " is for transformer_2 alone, which " +
                      config.directory.string() + " has not");
    // Opening all files first finds a missing or broken one before the first byte is copied.
    for (const std::string &component : components) {
      bytes_ += open_files(component, at::kCPU)->bytes();
      open(component, at::kCPU);
    }
    log_parts(context);
    for (const std::string &warning : warnings_) context.log(WAN_LOG_WARNING, warning);
  }

  std::unique_ptr<WeightSource> open(const std::string &component, at::Device device) override {
    std::unique_ptr<CheckpointWeights> weights = open_files(component, device);
    const auto changes = [&component](const Lora &lora) { return lora.strength_for(component) != 0; };
    if (std::none_of(loras_.begin(), loras_.end(), changes)) return weights;
    const TensorShapes shapes = weights->shapes();
    auto merged = std::make_unique<LoraWeights>(std::move(weights), shapes, loras_, component);
    warnings_.insert(merged->warnings().begin(), merged->warnings().end());
    return merged;
  }

  void close(const std::string &component, const WeightSource &source) override {
    const auto found = ignored_.find(component);
    source.check_all_loaded(found == ignored_.end() ? std::vector<std::string>() : found->second);
  }

 private:
  /// Of a torch.save() file with several parts, the one that was chosen.
  void log_parts(const RunContext &context) const {
    for (const auto &[component, files] : files_) {
      if (!is_pickle(files.path())) continue;
      const TensorFile file(files.path(), files.part);
      context.log(WAN_LOG_INFO, file.path() + ": its part '" + file.metadata().at("part") + "' is taken");
    }
  }

  std::unique_ptr<CheckpointWeights> open_files(const std::string &component, at::Device device) {
    return std::make_unique<CheckpointWeights>(files_.at(component), device, [this](uint64_t bytes) {
      bytes_read_ += bytes;
      progress_(bytes_read_, bytes_);
    });
  }

  /// Beginnings of tensors' names, by component. The text encoder's embedding may be stored under a second
  /// name as well, a file of the whole UMT5 has its decoder too, and ComfyUI's holds the tokenizer's model.
  static std::map<std::string, std::vector<std::string>> unused_tensors(const CheckpointConfig &config) {
    std::map<std::string, std::vector<std::string>> unused = {
        {"tiny_decoder", {"encoder."}},
        {"text_encoder", {kTiedEmbedding, "decoder.", "lm_head.", "spiece_model"}}};
    if (!config.encodes_pictures()) unused["vae"] = AutoencoderKLWan::kEncoderTensors;
    if (config.image_encoder)
      unused["image_encoder"] = CLIPVisionModel::unused_tensors(*config.image_encoder);
    return unused;
  }

  const std::map<std::string, ComponentFiles> files_;
  const std::map<std::string, std::vector<std::string>> ignored_;
  const std::vector<Lora> loras_;
  const std::function<void(uint64_t, uint64_t)> progress_;
  uint64_t bytes_ = 0, bytes_read_ = 0;
  std::set<std::string> warnings_;  // both experts have the same of a LoRA
};

}  // namespace

std::unique_ptr<ComponentSource> open_checkpoint(const CheckpointConfig &config, std::vector<Lora> loras,
                                                 const RunContext &context,
                                                 std::function<void(uint64_t, uint64_t)> progress) {
  return std::make_unique<CheckpointComponents>(config, std::move(loras), context, std::move(progress));
}

}  // namespace wan
