// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/lora_keys.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <string_view>

#include "checkpoint/names.h"

namespace wan {

namespace {

constexpr std::pair<std::string_view, LoraPart> kSuffixes[] = {
    {".lora_down.weight", LoraPart::kDown},
    {".lora_up.weight", LoraPart::kUp},
    {".lora_up.bias", LoraPart::kUpBias},
    {".lora_A.weight", LoraPart::kDown},
    {".lora_B.weight", LoraPart::kUp},
    {".lora_B.bias", LoraPart::kUpBias},
    {".lora_A", LoraPart::kDown},
    {".lora_B", LoraPart::kUp},
    {".lora.down.weight", LoraPart::kDown},
    {".lora.up.weight", LoraPart::kUp},
    {"_lora.down.weight", LoraPart::kDown},
    {"_lora.up.weight", LoraPart::kUp},
    {".lora_linear_layer.down.weight", LoraPart::kDown},
    {".lora_linear_layer.up.weight", LoraPart::kUp},
    {".alpha", LoraPart::kAlpha},
    {".diff", LoraPart::kDiff},
    {".diff_b", LoraPart::kDiffBias},
    {".w_norm", LoraPart::kDiff},
    {".b_norm", LoraPart::kDiffBias},
};
constexpr std::string_view kModulationDiff = ".diff_m";  // the whole name, but for "odulation"

enum class Expert { kEither, kFirst, kSecond };

/// What tools put before a module's name.
struct Prefix {
  std::string_view text;
  Expert expert = Expert::kEither;
  bool is_flat = false;  // '_' stands for '.' in what follows
};
// In every order and number; of two that fit, the first counts.
constexpr Prefix kPrefixes[] = {
    {"base_model.model."},
    {"model.diffusion_model."},
    {"diffusion_model."},
    {"transformer.", Expert::kFirst},
    {"transformer_2.", Expert::kSecond},
    {"pipe.dit.", Expert::kFirst},
    {"pipe.dit2.", Expert::kSecond},
    {"unet."},
    {"model."},
    {"module."},
    {"_orig_mod."},
    {"lora_unet__", Expert::kEither, true},
    {"lora_unet_", Expert::kEither, true},
    {"lora_transformer_2_", Expert::kSecond, true},
    {"lora_transformer_", Expert::kFirst, true},
    {"lycoris_", Expert::kEither, true},
};
constexpr std::string_view kTextEncoderPrefixes[] = {"text_encoder", "lora_te"};

/// Adapters of other kinds, by a part of their keys.
constexpr std::pair<std::string_view, const char *> kOtherAdapters[] = {
    {".dora_scale", "DoRA"}, {".lora_magnitude_vector", "DoRA"}, {".hada_w", "LoHa"}, {".lokr_w", "LoKr"},
    {".oft_", "OFT"},
};

struct Key {
  std::string module;  // as the file spells it, without prefixes
  std::optional<LoraPart> part;
  Expert expert = Expert::kEither;
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// PEFT puts the name of its adapter, which says nothing, before "weight".
std::string without_adapter_name(std::string key) {
  for (const std::string_view matrix : {".lora_A.", ".lora_B."}) {
    const size_t at = key.rfind(matrix);
    if (at == std::string::npos) continue;
    const size_t name = at + matrix.size(), end = key.find('.', name);
    if (end != std::string::npos) key.erase(name, end + 1 - name);
  }
  return key;
}

/// Takes the prefixes from a key. Returns whether '_' stands for '.' in what is left.
bool strip_prefixes(std::string_view &key, Expert &expert) {
  bool is_flat = false;
  const auto begins_key = [&key](const Prefix &prefix) { return key.starts_with(prefix.text); };
  for (const auto *prefix = std::ranges::find_if(kPrefixes, begins_key); prefix != std::end(kPrefixes);
       prefix = std::ranges::find_if(kPrefixes, begins_key)) {
    key.remove_prefix(prefix->text.size());
    if (prefix->expert != Expert::kEither) expert = prefix->expert;
    is_flat |= prefix->is_flat;
  }
  return is_flat;
}

/// Takes the suffix from a key.
std::optional<LoraPart> strip_suffix(std::string_view &key) {
  for (const auto &[suffix, part] : kSuffixes) {
    if (!key.ends_with(suffix)) continue;
    key.remove_suffix(suffix.size());
    return part;
  }
  return std::nullopt;
}

Key parse_key(const std::string &spelled) {
  const std::string text = without_adapter_name(spelled);
  std::string_view rest = text;
  Key key;
  const bool is_flat = strip_prefixes(rest, key.expert);
  if (rest.ends_with(kModulationDiff)) {
    rest.remove_suffix(kModulationDiff.size());
    key.module = std::string(rest) + ".modulation";
    key.part = LoraPart::kDiff;
  } else {
    key.part = strip_suffix(rest);
    key.module = rest;
  }
  // Some leave the dots behind the number.
  if (is_flat) std::ranges::replace(key.module, '.', '_');
  // Diffusers once had LoRAs in attention processors.
  constexpr std::string_view kProcessor = ".processor.";
  if (const size_t at = key.module.find(kProcessor); at != std::string::npos)
    key.module.replace(at, kProcessor.size(), ".");
  return key;
}

/// The modules of an expert by every name that LoRAs have for them. Names with '_' in place of '.' cannot be
/// taken apart, so they are made from the names of the modules.
std::map<std::string, std::string> spellings(const TensorShapes &shapes) {
  constexpr std::string_view kOutput = ".to_out.0";  // once ".to_out"
  std::map<std::string, std::string> modules;
  for (const auto &[tensor, shape] : shapes) {
    std::string module = tensor;
    for (const std::string_view suffix : {".weight", ".bias"})
      if (tensor.ends_with(suffix)) module.resize(tensor.size() - suffix.size());
    if (module.ends_with(kOutput)) modules.emplace(module.substr(0, module.size() - 2), module);
    for (std::string name : {module, stored_name(Naming::kOriginalTransformer, module)}) {
      modules.emplace(name, module);
      std::ranges::replace(name, '.', '_');
      modules.emplace(name, module);
    }
  }
  return modules;
}

bool is_of_text_encoder(std::string_view key) {
  return std::ranges::any_of(kTextEncoderPrefixes,
                             [key](std::string_view prefix) { return key.starts_with(prefix); });
}

Error error_of(const std::string &source, const std::string &what, const std::vector<std::string> &keys) {
  return invalid(source + " " + what + ": " + list_names(keys));
}

void check_kind(const std::vector<std::string> &keys, const std::string &source) {
  for (const auto &[part, kind] : kOtherAdapters)
    for (const std::string &key : keys)
      if (contains(key, part))
        throw error_of(source, std::string("holds a ") + kind + ", and only plain LoRAs are supported",
                       {key});
  std::vector<std::string> text_encoder;
  std::ranges::copy_if(keys, std::back_inserter(text_encoder), is_of_text_encoder);
  if (!text_encoder.empty())
    throw error_of(source, "changes a text encoder, which is not supported", text_encoder);
}

void check_complete(const LoraKeys &keys, const std::string &source) {
  std::vector<std::string> incomplete;
  for (const auto &[module, parts] : keys.modules) {
    const bool down = parts.contains(LoraPart::kDown), up = parts.contains(LoraPart::kUp);
    for (const auto &[part, key] : parts)
      if (part < LoraPart::kDiff && !(down && up)) incomplete.push_back(key);
  }
  if (!incomplete.empty())
    throw error_of(source,
                   "has only one of the two matrices down (A) and up (B), or an alpha or bias without them",
                   incomplete);
}

/// Keys that name the first expert are for it alone only in a file that names the second one too.
bool is_for(const std::string &component, Expert expert, bool names_second) {
  if (component == "transformer") return expert != Expert::kSecond;
  return expert != Expert::kFirst || !names_second;
}

}  // namespace

LoraKeys LoraKeys::sort(const std::vector<std::string> &keys, const TensorShapes &shapes,
                        const std::string &component, const std::string &source) {
  if (keys.empty()) throw invalid(source + " is no LoRA: it holds no tensors");
  check_kind(keys, source);
  std::map<std::string, Key> parsed;
  for (const std::string &key : keys) parsed.emplace(key, parse_key(key));
  const bool names_second =
      std::ranges::any_of(parsed, [](const auto &entry) { return entry.second.expert == Expert::kSecond; });

  const std::map<std::string, std::string> spelled = spellings(shapes);
  LoraKeys sorted;
  std::vector<std::string> unknown, twice;
  for (const auto &[text, key] : parsed) {
    if (!is_for(component, key.expert, names_second)) continue;
    const auto module = key.part ? spelled.find(key.module) : spelled.end();
    if (module != spelled.end()) {
      if (!sorted.modules[module->second].emplace(*key.part, text).second) twice.push_back(text);
    } else {
      (is_of_image(key.module) ? sorted.of_images : unknown).push_back(text);
    }
  }
  if (!unknown.empty()) throw error_of(source, "has keys that stand for no weight of " + component, unknown);
  if (!twice.empty()) throw error_of(source, "has a second tensor for the same part of a weight", twice);
  if (sorted.modules.empty() && !sorted.of_images.empty())
    throw error_of(source, "changes only what models that see an image have, and this one has not",
                   sorted.of_images);
  check_complete(sorted, source);
  return sorted;
}

}  // namespace wan
