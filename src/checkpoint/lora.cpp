// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/lora.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>

#include "checkpoint/json_file.h"
#include "checkpoint/lora_keys.h"
#include "checkpoint/names.h"

namespace wan {

namespace {

std::vector<std::string> keys_of(const TensorFile &file) {
  std::vector<std::string> keys;
  for (const auto &[key, entry] : file.tensors()) keys.push_back(key);
  return keys;
}

/// PEFT's scaling of modules whose alpha is not among the tensors, from the metadata in which Diffusers
/// stores a LoRA's configuration.
class AdapterMetadata {
 public:
  explicit AdapterMetadata(const TensorFile &file) {
    const auto found = file.metadata().find("lora_adapter_metadata");
    if (found != file.metadata().end())
      json_.emplace(std::string_view(found->second), file.path() + ", lora_adapter_metadata");
  }

  /// alpha, or alpha * sqrt(rank) of a LoRA with PEFT's use_rslora.
  double alpha(const std::string &module, int64_t rank) const {
    if (!json_) return static_cast<double>(rank);
    double alpha = json_->get<double>("transformer.lora_alpha", static_cast<double>(rank));
    // A pattern is the end of a module's name, or with '^' all of it.
    for (const auto &[pattern, value] :
         json_->get<std::map<std::string, double>>("transformer.alpha_pattern", {}))
      if (pattern == module || pattern == "^" + module || module.ends_with("." + pattern)) alpha = value;
    const bool by_root = json_->get<bool>("transformer.use_rslora", false);
    return by_root ? alpha * std::sqrt(static_cast<double>(rank)) : alpha;
  }

 private:
  std::optional<JsonFile> json_;
};

/// One file's changes to one expert.
class LoraReader {
 public:
  LoraReader(const TensorFile &file, const TensorShapes &shapes, const std::string &component)
      : file_(file),
        shapes_(shapes),
        component_(component),
        metadata_(file),
        keys_(LoraKeys::sort(keys_of(file), shapes, component, file.path())) {}

  /// One sentence of what is left out, or nothing.
  std::string warning() const {
    if (keys_.of_images.empty()) return {};
    constexpr size_t kShown = 8;
    return printable(
        "The LoRA " + file_.path() +
            " is for a model that sees an image, which this one does not; the rest of it is merged without " +
            list_names(keys_.of_images, kShown),
        std::string::npos);
  }

  void add_changes(double strength, LoraChanges &changes) {
    for (const auto &[module, parts] : keys_.modules) {
      if (parts.contains(LoraPart::kDown)) add_product(module, parts, strength, changes);
      const std::string weight = module + ".weight", bias = module + ".bias";
      if (const auto diff = parts.find(LoraPart::kDiff); diff != parts.end())
        add_diff(shapes_.contains(weight) ? weight : module, diff->second, strength, changes);
      if (const auto diff = parts.find(LoraPart::kDiffBias); diff != parts.end())
        add_diff(bias, diff->second, strength, changes);
      if (const auto diff = parts.find(LoraPart::kUpBias); diff != parts.end())
        add_diff(bias, diff->second, strength * scaling(module, parts), changes);
    }
    if (!misshapen_.empty()) throw error("has tensors of wrong shapes", misshapen_);
  }

 private:
  using Parts = LoraKeys::Parts;

  Error error(const std::string &what, const std::vector<std::string> &keys) const {
    return invalid(file_.path() + " " + what + ": " + list_names(keys));
  }

  const std::vector<int64_t> &shape(const std::string &key) const { return file_.tensors().at(key).shape; }
  int64_t rank(const Parts &parts) const {
    const std::vector<int64_t> &down = shape(parts.at(LoraPart::kDown));
    return down.empty() ? 0 : down[0];
  }

  /// alpha / rank
  double scaling(const std::string &module, const Parts &parts) const {
    const int64_t rank = this->rank(parts);
    const auto key = parts.find(LoraPart::kAlpha);
    const double alpha = key == parts.end() ? metadata_.alpha(module, rank) : read_number(key->second);
    return alpha / static_cast<double>(rank);
  }

  double read_number(const std::string &key) const {
    const bool is_one = c10::multiply_integers(shape(key)) == 1;
    const double number = is_one ? stored_tensor(file_, key).item<double>() : NAN;
    if (!std::isfinite(number)) throw error("has an alpha that is not a number", {key});
    return number;
  }

  void misshapen(const std::string &key, const std::string &tensor) {
    std::string text = key + " " + to_string(shape(key)) + " for " + tensor;
    const auto target = shapes_.find(tensor);
    if (target != shapes_.end()) text.append(" ").append(to_string(target->second));
    misshapen_.push_back(text);
  }

  void add_product(const std::string &module, const Parts &parts, double strength, LoraChanges &changes) {
    const std::string tensor = module + ".weight";
    const auto target = shapes_.find(tensor);
    const std::string &down_key = parts.at(LoraPart::kDown), &up_key = parts.at(LoraPart::kUp);
    // Of a convolution: [rank, in, kernel...] and [out, rank, 1...].
    const std::vector<int64_t> &down = shape(down_key), &up = shape(up_key);
    const bool fits = target != shapes_.end() && target->second.size() >= 2 && rank(parts) > 0 &&
                      down.size() == target->second.size() && up.size() == down.size() &&
                      std::equal(down.begin() + 1, down.end(), target->second.begin() + 1) &&
                      up[0] == target->second[0] && up[1] == down[0] &&
                      std::all_of(up.begin() + 2, up.end(), [](int64_t length) { return length == 1; });
    if (!fits) {
      misshapen(down_key, tensor);
      return misshapen(up_key, tensor);
    }
    require_float(up_key);
    require_float(down_key);
    changes[tensor].push_back(
        {.scale = strength * scaling(module, parts), .file = &file_, .up = up_key, .down = down_key});
  }

  void add_diff(const std::string &tensor, const std::string &key, double scale, LoraChanges &changes) {
    if (!shapes_.contains(tensor)) throw error("has keys that stand for no weight of " + component_, {key});
    if (shape(key) != shapes_.at(tensor)) return misshapen(key, tensor);
    require_float(key);
    changes[tensor].push_back({.scale = scale, .file = &file_, .diff = key});
  }

  void require_float(const std::string &key) const {
    if (!at::isFloatingType(stored_dtype(file_, key))) throw wrong_dtype(file_, key);
  }

  const TensorFile &file_;
  const TensorShapes &shapes_;
  const std::string &component_;
  const AdapterMetadata metadata_;
  const LoraKeys keys_;
  std::vector<std::string> misshapen_;
};

}  // namespace

Lora::Lora(const std::filesystem::path &path, double strength, double strength_2)
    : file(path), strength(strength), strength_2(strength_2) {
  if (!std::isfinite(strength) || !std::isfinite(strength_2))
    throw invalid("The strength of the LoRA " + path.string() + " must be a number");
}

double Lora::strength_for(const std::string &component) const {
  if (component == "transformer") return strength;
  return component == "transformer_2" ? strength_2 : 0;
}

LoraWeights::LoraWeights(std::unique_ptr<WeightSource> source, const TensorShapes &shapes,
                         const std::vector<Lora> &loras, const std::string &component)
    : source_(std::move(source)) {
  for (const Lora &lora : loras) {
    const double strength = lora.strength_for(component);
    if (strength == 0) continue;
    files_.push_back(lora.file);
    LoraReader reader(files_.back(), shapes, component);
    reader.add_changes(strength, changes_);
    if (std::string warning = reader.warning(); !warning.empty()) warnings_.insert(std::move(warning));
  }
}

at::Tensor LoraWeights::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  const auto changes = changes_.find(name);
  if (changes == changes_.end()) return source_->load(name, shape, dtype);
  const at::Tensor weight = source_->load(name, shape, at::kFloat);
  for (const LoraChange &change : changes->second) {
    const auto wide = [&](const std::string &key) {
      return stored_tensor(*change.file, key).to(weight.device()).to(at::kFloat);
    };
    if (!change.diff.empty())
      weight.add_(wide(change.diff), change.scale);
    else
      weight.view({weight.size(0), -1})
          .addmm_(wide(change.up).flatten(1), wide(change.down).flatten(1), 1, change.scale);
  }
  return weight.to(dtype);
}

}  // namespace wan
