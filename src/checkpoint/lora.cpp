#include "checkpoint/lora.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>

#include "checkpoint/json_file.h"
#include "checkpoint/names.h"

namespace wan {

namespace {

/// What a key's tensor is to its module.
enum class Part { kDown, kUp, kUpBias, kAlpha, kDiff, kDiffBias };

constexpr std::pair<std::string_view, Part> kSuffixes[] = {
    {".lora_down.weight", Part::kDown},
    {".lora_up.weight", Part::kUp},
    {".lora_up.bias", Part::kUpBias},
    {".lora_A.weight", Part::kDown},
    {".lora_B.weight", Part::kUp},
    {".lora_B.bias", Part::kUpBias},
    {".lora_A.default.weight", Part::kDown},
    {".lora_B.default.weight", Part::kUp},
    {".lora_B.default.bias", Part::kUpBias},
    {".alpha", Part::kAlpha},
    {".diff", Part::kDiff},
    {".diff_b", Part::kDiffBias},
};
constexpr std::string_view kModulationDiff = ".diff_m";  // the whole name, but for "odulation"

constexpr std::string_view kSecondExpert = "transformer_2.";
// In every order and number in which tools put them before a module's name.
constexpr std::string_view kPrefixes[] = {"base_model.model.", "model.diffusion_model.",
                                          "diffusion_model.",  "transformer.",
                                          kSecondExpert,       "lora_unet_"};
constexpr std::string_view kTextEncoderPrefixes[] = {"text_encoder", "lora_te"};

struct Key {
  std::string module;  // as the file spells it
  Part part;
};

std::string_view strip_prefixes(std::string_view key) {
  const auto begins_key = [&key](std::string_view prefix) { return key.starts_with(prefix); };
  for (const auto *prefix = std::ranges::find_if(kPrefixes, begins_key); prefix != std::end(kPrefixes);
       prefix = std::ranges::find_if(kPrefixes, begins_key))
    key.remove_prefix(prefix->size());
  return key;
}

std::optional<Key> parse_key(std::string_view key) {
  key = strip_prefixes(key);
  if (key.ends_with(kModulationDiff)) {
    key.remove_suffix(kModulationDiff.size());
    return Key{std::string(key) + ".modulation", Part::kDiff};
  }
  for (const auto &[suffix, part] : kSuffixes)
    if (key.ends_with(suffix)) return Key{std::string(key.substr(0, key.size() - suffix.size())), part};
  return std::nullopt;
}

/// The modules of an expert by every name that LoRAs have for them. Names with '_' in place of '.' cannot be
/// taken apart, so they are made from the names of the modules.
std::map<std::string, std::string> spellings(const TensorShapes &shapes) {
  std::map<std::string, std::string> modules;
  for (const auto &[tensor, shape] : shapes) {
    std::string module = tensor;
    for (const std::string_view suffix : {".weight", ".bias"})
      if (tensor.ends_with(suffix)) module.resize(tensor.size() - suffix.size());
    for (std::string name : {module, stored_name(Naming::kOriginalTransformer, module)}) {
      modules.emplace(name, module);
      std::ranges::replace(name, '.', '_');
      modules.emplace(name, module);
    }
  }
  return modules;
}

/// "a, b, c and 5 more"
std::string list(const std::vector<std::string> &keys) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(keys.size(), kShown); ++i) text += (i ? ", " : "") + keys[i];
  return keys.size() > kShown ? text + " and " + std::to_string(keys.size() - kShown) + " more" : text;
}

/// PEFT's scaling of modules whose alpha is not among the tensors, from the metadata in which Diffusers
/// stores a LoRA's configuration.
class AdapterMetadata {
 public:
  explicit AdapterMetadata(const SafetensorsFile &file) {
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
  LoraReader(const SafetensorsFile &file, const TensorShapes &shapes, const std::string &component)
      : file_(file), shapes_(shapes), component_(component), metadata_(file) {
    sort_keys();
  }

  void add_changes(double strength, LoraChanges &changes) {
    for (const auto &[module, parts] : modules_) {
      if (parts.contains(Part::kDown)) add_product(module, parts, strength, changes);
      const std::string weight = module + ".weight", bias = module + ".bias";
      if (const auto diff = parts.find(Part::kDiff); diff != parts.end())
        add_diff(shapes_.contains(weight) ? weight : module, diff->second, strength, changes);
      if (const auto diff = parts.find(Part::kDiffBias); diff != parts.end())
        add_diff(bias, diff->second, strength, changes);
      if (const auto diff = parts.find(Part::kUpBias); diff != parts.end())
        add_diff(bias, diff->second, strength * scaling(module, parts), changes);
    }
    if (!misshapen_.empty()) throw error("has tensors of wrong shapes", misshapen_);
  }

 private:
  using Parts = std::map<Part, std::string>;  // the keys of one module

  Error error(const std::string &what, const std::vector<std::string> &keys) const {
    return invalid(file_.path() + " " + what + ": " + list(keys));
  }

  bool is_for_component(std::string_view key, bool names_second_expert) const {
    const bool second = key.starts_with(kSecondExpert);
    if (component_ == "transformer") return !second;
    return second || !names_second_expert || !key.starts_with("transformer.");
  }

  void sort_keys() {
    if (file_.tensors().empty()) throw invalid(file_.path() + " is no LoRA: it holds no tensors");
    const auto names_second = [](const auto &tensor) { return tensor.first.starts_with(kSecondExpert); };
    const bool names_second_expert = std::ranges::any_of(file_.tensors(), names_second);
    const std::map<std::string, std::string> spelled = spellings(shapes_);
    std::vector<std::string> text_encoder, unknown, twice;
    for (const auto &[key, entry] : file_.tensors()) {
      const auto begins_key = [&key = key](std::string_view prefix) { return key.starts_with(prefix); };
      if (std::ranges::any_of(kTextEncoderPrefixes, begins_key)) {
        text_encoder.push_back(key);
        continue;
      }
      if (!is_for_component(key, names_second_expert)) continue;
      const std::optional<Key> parsed = parse_key(key);
      const auto module = parsed ? spelled.find(parsed->module) : spelled.end();
      if (module == spelled.end())
        unknown.push_back(key);
      else if (!modules_[module->second].emplace(parsed->part, key).second)
        twice.push_back(key);
    }
    if (!text_encoder.empty()) throw error("changes a text encoder, which is not supported", text_encoder);
    if (!unknown.empty()) throw error("has keys that stand for no weight of " + component_, unknown);
    if (!twice.empty()) throw error("has a second tensor for the same part of a weight", twice);
    check_complete();
  }

  void check_complete() const {
    std::vector<std::string> incomplete;
    for (const auto &[module, parts] : modules_) {
      const bool down = parts.contains(Part::kDown), up = parts.contains(Part::kUp);
      for (const auto &[part, key] : parts)
        if (part < Part::kDiff && !(down && up)) incomplete.push_back(key);
    }
    if (!incomplete.empty())
      throw error("has only one of the two matrices down (A) and up (B), or an alpha or bias without them",
                  incomplete);
  }

  const std::vector<int64_t> &shape(const std::string &key) const { return file_.tensors().at(key).shape; }
  int64_t rank(const Parts &parts) const {
    const std::vector<int64_t> &down = shape(parts.at(Part::kDown));
    return down.empty() ? 0 : down[0];
  }

  /// alpha / rank
  double scaling(const std::string &module, const Parts &parts) const {
    const int64_t rank = this->rank(parts);
    const auto key = parts.find(Part::kAlpha);
    const double alpha = key == parts.end() ? metadata_.alpha(module, rank) : read_number(key->second);
    return alpha / static_cast<double>(rank);
  }

  double read_number(const std::string &key) const {
    const at::Tensor stored = stored_tensor(file_, key);
    const double number = stored.numel() == 1 ? stored.item<double>() : NAN;
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
    const std::string &down_key = parts.at(Part::kDown), &up_key = parts.at(Part::kUp);
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
    changes[tensor].push_back({.scale = strength * scaling(module, parts),
                               .up = stored_tensor(file_, up_key).flatten(1),
                               .down = stored_tensor(file_, down_key).flatten(1)});
  }

  void add_diff(const std::string &tensor, const std::string &key, double scale, LoraChanges &changes) {
    if (!shapes_.contains(tensor)) throw error("has keys that stand for no weight of " + component_, {key});
    if (shape(key) != shapes_.at(tensor)) return misshapen(key, tensor);
    changes[tensor].push_back({.scale = scale, .diff = stored_tensor(file_, key)});
  }

  const SafetensorsFile &file_;
  const TensorShapes &shapes_;
  const std::string &component_;
  const AdapterMetadata metadata_;
  std::map<std::string, Parts> modules_;
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
    LoraReader(lora.file, shapes, component).add_changes(strength, changes_);
  }
}

at::Tensor LoraWeights::load(const std::string &name, at::IntArrayRef shape, at::ScalarType dtype) {
  const auto changes = changes_.find(name);
  if (changes == changes_.end()) return source_->load(name, shape, dtype);
  const at::Tensor weight = source_->load(name, shape, at::kFloat);
  const auto wide = [&weight](const at::Tensor &stored) { return stored.to(weight.device()).to(at::kFloat); };
  for (const LoraChange &change : changes->second)
    if (change.diff.defined())
      weight.add_(wide(change.diff), change.scale);
    else
      weight.view({weight.size(0), -1}).addmm_(wide(change.up), wide(change.down), 1, change.scale);
  return weight.to(dtype);
}

}  // namespace wan
