// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/layout.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "checkpoint/input_file.h"
#include "checkpoint/pickle.h"

namespace wan {

namespace {

namespace fs = std::filesystem;
using Kind = FoundComponent::Kind;

constexpr double kA14bBoundary = 0.875, kA14bFlowShift = 3.0;
constexpr int64_t kHeadDim = 128, kTrainTimesteps = 1000;
// latents_mean and latents_std of the released VAE of Wan 2.1 and of Wan 2.2 A14B.
constexpr std::array kLatentsMean = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                                     0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
constexpr std::array kLatentsStd = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};

/// A tensor that only one kind of component has, and whose name tells the naming.
struct Sign {
  const char *tensor;
  Kind kind;
  Naming naming;
};
constexpr Sign kSigns[] = {
    {"head.modulation", Kind::kTransformer, Naming::kOriginalTransformer},
    {"condition_embedder.time_proj.weight", Kind::kTransformer, Naming::kDiffusers},
    {"decoder.upsamples.0.upsamples.0.residual.0.gamma", Kind::kVae, Naming::kOriginalResidualVae},
    {"decoder.middle.0.residual.0.gamma", Kind::kVae, Naming::kOriginalVae},
    {"decoder.mid_block.resnets.0.norm1.gamma", Kind::kVae, Naming::kDiffusers},
    // Of the second block: T5, which lies beside UMT5 where other models are used too, has it in the first
    // only.
    {"blocks.1.pos_embedding.embedding.weight", Kind::kTextEncoder, Naming::kOriginalTextEncoder},
    {"encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight", Kind::kTextEncoder,
     Naming::kDiffusers},
};
constexpr const char *kPrefixes[] = {"", "model.diffusion_model.", "diffusion_model."};

std::string name_of(Kind kind) {
  return kind == Kind::kTransformer ? "transformer" : kind == Kind::kVae ? "VAE" : "text encoder";
}

std::string lower_case(std::string text) {
  for (char &c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

/// The words of a name, in lower case: "Wan2_2-T2V-HighNoise" has wan2, 2, t2v, high and noise.
std::set<std::string> words_of(const std::string &name) {
  std::set<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.insert(lower_case(std::exchange(word, "")));
  };
  for (size_t i = 0; i < name.size(); ++i) {
    const auto is = [&](int (*kind)(int), size_t at) {
      return at < name.size() && kind(static_cast<unsigned char>(name[at])) != 0;
    };
    // A capital begins a word behind a small letter, and before one.
    const bool capital = is(std::isupper, i) && i && (is(std::islower, i - 1) || is(std::islower, i + 1));
    if (capital || !is(std::isalnum, i)) end_word();
    if (is(std::isalnum, i)) word += name[i];
  }
  end_word();
  return words;
}

enum class Noise { kHigh, kLow, kUnknown };

/// The noise that an expert is for, by its file's name: "high_noise" in some spelling, or else the word
/// "high".
Noise noise_of(const FoundComponent &found) {
  std::string letters = lower_case(found.files.stem);
  std::erase_if(letters, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
  const std::set<std::string> words = words_of(found.files.stem);
  for (const auto &[high, low] :
       {std::pair{letters.find("highnoise") != letters.npos, letters.find("lownoise") != letters.npos},
        {words.contains("high"), words.contains("low")}})
    if (high != low) return high ? Noise::kHigh : Noise::kLow;
  return Noise::kUnknown;
}

std::string describe(const FoundComponent &found) {
  const std::optional<std::string> task =
      found.kind == Kind::kTransformer ? found.other_task() : std::nullopt;
  return name_of(found.kind) + (task ? " for " + *task : "");
}

using Some = std::vector<const FoundComponent *>;

/// Wan 2.2's small model has a VAE of its own, which may lie beside A14B's. Where no VAE is supported, the
/// first is left, and says so when it is read.
Some supported_vaes(const Some &vaes) {
  Some supported;
  std::ranges::copy_if(vaes, std::back_inserter(supported), [](const FoundComponent *vae) {
    const auto weight = vae->shapes.find("post_quant_conv.weight");
    return weight != vae->shapes.end() && !weight->second.empty() &&
           weight->second[0] == std::ssize(kLatentsMean);
  });
  if (supported.empty() && !vaes.empty()) supported.push_back(vaes.front());
  return supported;
}

std::string paths_of(const Some &some) {
  std::vector<std::string> paths;
  for (const FoundComponent *component : some) paths.push_back(component->files.path());
  return list_names(paths, paths.size());
}

/// What lies in a directory and the places that ComfyUI and Diffusers have for components.
class Listing {
 public:
  explicit Listing(const fs::path &directory) : directory_(directory) {
    for (const char *part : {"", "diffusion_models", "text_encoders", "text_encoder", "vae"})
      scan(part[0] ? directory / part : directory);
  }

  Some all(Kind kind) const {
    Some some;
    for (const FoundComponent &component : components_)
      if (component.kind == kind) some.push_back(&component);
    return some;
  }

  const FoundComponent &only(Kind kind) const {
    const Some some = kind == Kind::kVae ? supported_vaes(all(kind)) : all(kind);
    if (some.empty()) throw missing("a " + name_of(kind));
    if (some.size() > 1) throw ambiguous("the " + name_of(kind), some);
    return *some.front();
  }

  Error ambiguous(const std::string &what, const Some &some) const {
    return invalid("'" + directory_.string() + "' has more than one file for " + what + ": " +
                   paths_of(some) + "; leave one of them there");
  }

  /// `what`: "a VAE".
  Error missing(const std::string &what) const {
    const std::string start = "'" + directory_.string() + "' has neither a model_index.json nor " + what;
    if (!unreadable_.empty())
      return invalid(start + " that can be read: " + list_names(unreadable_) + others());
    if (!pickles_.empty()) return pickle_error(start + " that can be read: " + list_names(pickles_));
    if (!ggufs_.empty())
      return invalid(start + " that can be read: GGUF is not supported (" + list_names(ggufs_) + ")");
    if (components_.empty())
      return not_found(
          "'" + directory_.string() +
          "' is no checkpoint: it has neither a model_index.json, as Diffusers' have, nor "
          "high_noise_model and low_noise_model, nor a .safetensors of a transformer, a text encoder "
          "or a VAE");
    std::vector<std::string> found;
    for (const FoundComponent &component : components_)
      found.push_back(component.files.path() + " (" + describe(component) + ")");
    return not_found(start + "; it has " + list_names(found, found.size()));
  }

 private:
  void scan(const fs::path &directory) {
    std::error_code status;
    std::set<fs::path> files;  // in the same order on every machine
    for (fs::directory_iterator entry(directory, status), end; !status && entry != end;
         entry.increment(status))
      files.insert(entry->path());
    if (status && status != std::errc::no_such_file_or_directory && status != std::errc::not_a_directory)
      throw invalid("The directory '" + directory.string() + "' cannot be read: " + status.message());
    std::set<std::string> stems, sharded;
    for (const fs::path &file : files) {
      const std::string name = file.filename().string(), extension = lower_case(file.extension().string());
      if (is_pickle(file))
        pickles_.push_back(file.string());
      else if (extension == ".gguf")
        ggufs_.push_back(file.string());
      else if (extension == ".safetensors")
        stems.insert(file.stem().string());
      else if (constexpr std::string_view kIndex = ".safetensors.index.json"; name.ends_with(kIndex))
        sharded.insert(name.substr(0, name.size() - kIndex.size()));
    }
    for (const std::string &stem : sharded) {
      for (const std::string &shard : add_sharded({directory, stem})) stems.erase(shard);
      std::erase_if(stems, [&stem](const std::string &other) { return is_shard(other, stem); });
    }
    for (const std::string &stem : stems) add({directory, stem});
  }

  /// Whether a file is in the place of an index, or by its name one of its shards: "STEM-00001-of-00006".
  /// Some publish shards under other names than the index has; each alone is no component.
  static bool is_shard(const std::string &file, const std::string &stem) {
    const std::string number = stem + "-0";
    return file == stem || file.starts_with(number);
  }

  /// Returns the stems of the shards.
  std::set<std::string> add_sharded(const ComponentFiles &files) {
    std::set<std::string> shards;
    try {
      const JsonFile index(files.directory / (files.stem + ".safetensors.index.json"));
      for (const auto &[tensor, shard] : parse_weight_map(index))
        shards.insert(fs::path(shard).stem().string());
    } catch (const Error &) {
      // add() meets the same, and keeps it.
    }
    add(files);
    return shards;
  }

  /// A file that cannot be read is no obstacle while the model is complete without it.
  void add(const ComponentFiles &files) {
    try {
      TensorShapes stored;
      for (const SafetensorsFile &file : open_safetensors(files.directory, files.stem))
        for (const auto &[name, entry] : file.tensors()) stored[name] = entry.shape;
      if (auto found = FoundComponent::recognise(files, stored)) components_.push_back(*std::move(found));
    } catch (const Error &error) {
      unreadable_.push_back(error.what());
    }
  }

  /// What is not even opened, for an error.
  std::string others() const {
    std::vector<std::string> paths = pickles_;
    paths.insert(paths.end(), ggufs_.begin(), ggufs_.end());
    return paths.empty() ? "" : "; pickles and GGUF are not read (" + list_names(paths) + ")";
  }

  const fs::path directory_;
  std::vector<FoundComponent> components_;
  std::vector<std::string> pickles_, ggufs_;
  std::vector<std::string> unreadable_;  // a sentence for each
};

/// The config.json of the original release, beside an expert; nothing in it but this is not in the shapes
/// too.
void apply_original_config(const fs::path &path, TransformerConfig &config) {
  const JsonFile file(path);
  const std::string type = file.get<std::string>("model_type", "t2v");
  if (type != "t2v")
    throw file.error("model_type", "is '" + printable(type) + "', but only t2v is supported");
  const int64_t heads = file.integer("num_heads", config.num_attention_heads, 1, config.inner_dim());
  if (config.inner_dim() % heads || config.inner_dim() / heads % 2 || config.inner_dim() / heads < 6)
    throw file.error("num_heads", "does not fit the width " + std::to_string(config.inner_dim()));
  config.attention_head_dim = config.inner_dim() / heads;
  config.num_attention_heads = heads;
}

struct Experts {
  FoundComponent transformer;
  std::optional<FoundComponent> transformer_2;
  bool have_config = false;  // a config.json of the original release
};

Error not_text_to_video(const FoundComponent &found) {
  return invalid(found.files.path() + " is a " + describe(found) + ", and only text to video is supported");
}

/// Experts of each kind of noise, and those whose names do not tell.
using ByNoise = std::map<Noise, Some>;

ByNoise by_noise(const Some &experts) {
  ByNoise sorted;
  for (const FoundComponent *expert : experts) sorted[noise_of(*expert)].push_back(expert);
  return sorted;
}

/// Of the two experts, the one for this noise. `others`: those that are no models of text to video.
const FoundComponent &only_expert(const Listing &listing, ByNoise &experts, ByNoise &others, Noise noise) {
  const std::string name = noise == Noise::kHigh ? "high" : "low";
  const Some &some = experts[noise];
  if (some.size() > 1) throw listing.ambiguous("the expert for " + name + " noise", some);
  if (!some.empty()) return *some.front();
  if (!others[noise].empty()) throw not_text_to_video(*others[noise].front());
  throw listing.missing("a transformer with " + name + "_noise in its name");
}

/// Among single files: a pair by their names, or one without either name. Models for other tasks do not
/// count, but are named where nothing else is there.
Experts choose_experts(const fs::path &directory, const Listing &listing) {
  Some supported, unsupported;
  for (const FoundComponent *expert : listing.all(Kind::kTransformer))
    (expert->other_task() ? unsupported : supported).push_back(expert);
  ByNoise experts = by_noise(supported), others = by_noise(unsupported);
  const Some &unknown = experts[Noise::kUnknown];
  if (supported.size() > unknown.size()) {
    const FoundComponent &high = only_expert(listing, experts, others, Noise::kHigh);
    const FoundComponent &low = only_expert(listing, experts, others, Noise::kLow);
    if (!unknown.empty())
      throw invalid(
          paths_of(unknown) +
          " has neither high_noise nor low_noise in its name, and there are experts for both: move it "
          "to another directory");
    return {high, low};
  }
  if (unknown.size() > 1)
    throw invalid(
        "'" + directory.string() + "' has more than one transformer: " + paths_of(unknown) +
        "; their names do not tell the experts apart: put high_noise into the name of one and low_noise "
        "into that of the other, or, if each is a whole model, leave one of them there");
  if (unknown.empty() && !unsupported.empty()) throw not_text_to_video(*unsupported.front());
  return {unknown.empty() ? listing.only(Kind::kTransformer) : *unknown.front(), std::nullopt};
}

Experts find_experts(const fs::path &directory, const Listing &listing) {
  const fs::path high = directory / "high_noise_model", low = directory / "low_noise_model";
  std::error_code status;
  if (fs::is_directory(high, status) || fs::is_directory(low, status)) {
    for (const fs::path &expert : {high, low})
      if (!fs::is_directory(expert, status))
        throw not_found("'" + directory.string() +
                        "' has only one of high_noise_model and low_noise_model: " + expert.string() +
                        " is missing");
    return {Listing(high).only(Kind::kTransformer), Listing(low).only(Kind::kTransformer), true};
  }
  return choose_experts(directory, listing);
}

fs::path find_tokenizer(const fs::path &directory) {
  for (const char *place : {"tokenizer", "google/umt5-xxl"})
    if (is_there(directory / place / "tokenizer.json")) return directory / place;
  throw not_found("'" + directory.string() +
                  "' has no tokenizer: put the tokenizer.json of google/umt5-xxl on Hugging Face into " +
                  (directory / "tokenizer").string());
}

TransformerConfig transformer_config(const FoundComponent &found, bool has_config) {
  if (found.other_task()) throw not_text_to_video(found);
  TransformerConfig config = found.transformer_config();
  if (has_config) apply_original_config(found.files.directory / "config.json", config);
  return config;
}

}  // namespace

std::optional<FoundComponent> FoundComponent::recognise(const ComponentFiles &files,
                                                        const TensorShapes &stored) {
  for (const std::string prefix : kPrefixes)
    for (const Sign &sign : kSigns) {
      if (!stored.contains(prefix + sign.tensor)) continue;
      FoundComponent found = {sign.kind, {files.directory, files.stem, sign.naming, prefix}, {}};
      for (const auto &[name, shape] : stored)
        if (name.starts_with(prefix))
          found.shapes[diffusers_name(sign.naming, name.substr(prefix.size()))] = shape;
      if (const auto tied = found.shapes.find(kTiedEmbedding); tied != found.shapes.end())
        found.shapes.emplace(kEmbedding, tied->second);
      return found;
    }
  return std::nullopt;
}

/// Of a dimension of a tensor that must have so many and not be empty; so their product is at most a file's
/// size.
int64_t FoundComponent::length(const std::string &tensor, size_t dimension, size_t dimensions) const {
  const auto found = shapes.find(tensor);
  const std::string stored = files.stored_name(tensor);
  if (found == shapes.end()) throw invalid(files.path() + " lacks the tensor '" + stored + "'");
  const bool is_empty = std::ranges::any_of(found->second, [](int64_t size) { return size < 1; });
  if (found->second.size() != dimensions || is_empty)
    throw invalid(files.path() + ": tensor '" + stored + "' has not the dimensions of a " + name_of(kind));
  return found->second[dimension];
}

std::optional<std::string> FoundComponent::other_task() const {
  if (std::ranges::any_of(shapes, [](const auto &tensor) { return is_of_image(tensor.first); }))
    return "image to video of Wan 2.1 (it has an image_dim)";
  static const std::pair<const char *, const char *> tasks[] = {{"vace_", "VACE"},
                                                                {"face_adapter", "Wan-Animate"},
                                                                {"audio", "sound to video"},
                                                                {"control_adapter", "a camera's control"}};
  for (const auto &[part, task] : tasks)
    for (const auto &[tensor, shape] : shapes)
      if (tensor.find(part) != std::string::npos) return task;
  const auto patch = shapes.find("patch_embedding.weight");
  const bool tells = patch != shapes.end() && patch->second.size() == 5 && patch->second[1] > 0;
  const int64_t channels = tells ? patch->second[1] : std::ssize(kLatentsMean);
  if (channels == std::ssize(kLatentsMean)) return std::nullopt;
  constexpr int64_t kImageToVideo = 36, kSmall = 48;
  const std::string task = channels == kImageToVideo ? "image to video"
                           : channels == kSmall      ? "TI2V-5B"
                                                     : "another task";
  return task + " (its in_channels are " + std::to_string(channels) + ", not " +
         std::to_string(kLatentsMean.size()) + ")";
}

int64_t FoundComponent::count_blocks(const std::string &before, const std::string &after) const {
  int64_t count = 0;
  while (shapes.contains(before + std::to_string(count) + after)) ++count;
  return count;
}

JsonFile FoundComponent::json(const Json &values) const {
  return JsonFile(std::string_view(values.dump()), files.path());
}

TransformerConfig FoundComponent::transformer_config() const {
  const std::string patch = "patch_embedding.weight";
  const int64_t width = length(patch, 0, 5), area = length(patch, 3, 5) * length(patch, 4, 5);
  if (width % kHeadDim)
    throw invalid(files.path() + ": a width of " + std::to_string(width) + " is no multiple of " +
                  std::to_string(kHeadDim));
  const std::string embedder = "condition_embedder.";
  return TransformerConfig::parse(
      json({{"_class_name", "WanTransformer3DModel"},
            {"patch_size", {length(patch, 2, 5), length(patch, 3, 5), length(patch, 4, 5)}},
            {"num_attention_heads", width / kHeadDim},
            {"attention_head_dim", kHeadDim},
            {"in_channels", length(patch, 1, 5)},
            {"out_channels", length("proj_out.weight", 0, 2) / area},
            {"text_dim", length(embedder + "text_embedder.linear_1.weight", 1, 2)},
            {"freq_dim", length(embedder + "time_embedder.linear_1.weight", 1, 2)},
            {"ffn_dim", length("blocks.0.ffn.net.0.proj.weight", 0, 2)},
            {"num_layers", count_blocks("blocks.", ".scale_shift_table")}}));
}

VaeConfig FoundComponent::vae_config() const {
  const int64_t latent_channels = length("post_quant_conv.weight", 0, 5);
  if (latent_channels != std::ssize(kLatentsMean))
    throw invalid(files.path() + ": a VAE with " + std::to_string(latent_channels) +
                  " latent channels is not supported; A14B's has " + std::to_string(kLatentsMean.size()));
  return VaeConfig::parse(json({{"_class_name", "AutoencoderKLWan"},
                                {"base_dim", length("decoder.norm_out.gamma", 0, 4)},
                                {"z_dim", latent_channels},
                                {"latents_mean", kLatentsMean},
                                {"latents_std", kLatentsStd}}));
}

TextEncoderConfig FoundComponent::text_encoder_config() const {
  const std::string layer = "encoder.block.0.layer.";
  const std::string bias = layer + "0.SelfAttention.relative_attention_bias.weight";
  const int64_t heads = length(bias, 1, 2);
  return TextEncoderConfig::parse(
      json({{"model_type", "umt5"},
            {"vocab_size", length("shared.weight", 0, 2)},
            {"d_model", length("shared.weight", 1, 2)},
            {"d_kv", length(layer + "0.SelfAttention.q.weight", 0, 2) / heads},
            {"d_ff", length(layer + "1.DenseReluDense.wi_0.weight", 0, 2)},
            {"num_layers", count_blocks("encoder.block.", ".layer.0.layer_norm.weight")},
            {"num_heads", heads},
            {"relative_attention_num_buckets", length(bias, 0, 2)}}));
}

CheckpointConfig read_single_files(const fs::path &directory) {
  const Listing listing(directory);
  const Experts experts = find_experts(directory, listing);
  const FoundComponent &text_encoder = listing.only(Kind::kTextEncoder), &vae = listing.only(Kind::kVae);
  CheckpointConfig config{};
  config.directory = directory;
  config.tokenizer = find_tokenizer(directory);
  config.transformer = transformer_config(experts.transformer, experts.have_config);
  config.files["transformer"] = experts.transformer.files;
  if (experts.transformer_2) {
    config.boundary_ratio = kA14bBoundary;
    config.transformer_2 = transformer_config(*experts.transformer_2, experts.have_config);
    config.files["transformer_2"] = experts.transformer_2->files;
  }
  config.text_encoder = text_encoder.text_encoder_config();
  config.files["text_encoder"] = text_encoder.files;
  config.vae = vae.vae_config();
  config.files["vae"] = vae.files;
  config.scheduler = {WAN_SCHEDULER_UNIPC, kA14bFlowShift, kTrainTimesteps};
  return config;
}

}  // namespace wan
