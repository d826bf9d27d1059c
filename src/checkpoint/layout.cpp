// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/layout.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "checkpoint/gguf.h"
#include "checkpoint/input_file.h"
#include "checkpoint/pickle.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/torch_file.h"

namespace wan {

namespace {

namespace fs = std::filesystem;
using Kind = FoundComponent::Kind;

constexpr int64_t kHeadDim = 128, kClipHeadDim = 80, kTrainTimesteps = 1000;
constexpr const char *kTextToVideo = "text to video";
// latents_mean and latents_std of the released VAE of Wan 2.1 and of Wan 2.2 A14B.
constexpr std::array kLatentsMean = {-0.7571, -0.7089, -0.9113, 0.1075,  -0.1745, 0.9653,  -0.1517, 1.5508,
                                     0.4134,  -0.0715, 0.5517,  -0.3632, -0.1922, -0.9497, 0.2503,  -0.2921};
constexpr std::array kLatentsStd = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743,
                                    3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};
// The same of TI2V-5B's.
constexpr std::array kSmallLatentsMean = {
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174,  0.1838,  0.1557,  -0.1382, 0.0542,
    0.2813,  0.0891,  0.1570,  -0.0098, 0.0375,  -0.1825, -0.2246, -0.1207, -0.0698, 0.5109,
    0.2665,  -0.2108, -0.2158, 0.2502,  -0.2055, -0.0322, 0.1109,  0.1567,  -0.0729, 0.0899,
    -0.2799, -0.1230, -0.0313, -0.1649, 0.0117,  0.0723,  -0.2839, -0.2083, -0.0520, 0.3748,
    0.0152,  0.1957,  0.1433,  -0.2944, 0.3573,  -0.0548, -0.1681, -0.0667};
constexpr std::array kSmallLatentsStd = {
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744};
constexpr int64_t kLatents = kLatentsMean.size(), kSmallLatents = kSmallLatentsMean.size();
/// Behind the noise's channels: a mask of four frames, and latents.
constexpr int64_t kChannelsWithPicture = 2 * kLatents + 4;

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
    {"enc.blk.1.attn_rel_b.weight", Kind::kTextEncoder, Naming::kLlamaTextEncoder},
    {"vision_model.embeddings.class_embedding", Kind::kImageEncoder, Naming::kDiffusers},
    {"embeddings.class_embedding", Kind::kImageEncoder, Naming::kBareClipVision},
};
constexpr const char *kPrefixes[] = {"", "model.diffusion_model.", "diffusion_model.", "model."};

std::string name_of(Kind kind) {
  switch (kind) {
    case Kind::kTransformer:
      return "transformer";
    case Kind::kVae:
      return "VAE";
    case Kind::kTextEncoder:
      return "text encoder";
    case Kind::kImageEncoder:
      return "CLIP image encoder";
  }
  return {};
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
  return name_of(found.kind) + (found.kind == Kind::kTransformer ? " for " + found.task() : "");
}

using Some = std::vector<const FoundComponent *>;

/// Wan 2.2's small model has a VAE of its own, which may lie beside that of all others. Where none has as
/// many latents as the transformer, the first is left, and says so when it is read.
Some vaes_of(const Some &vaes, int64_t latents) {
  Some fitting;
  std::ranges::copy_if(vaes, std::back_inserter(fitting), [latents](const FoundComponent *vae) {
    const auto weight = vae->shapes.find("post_quant_conv.weight");
    return weight != vae->shapes.end() && !weight->second.empty() && weight->second[0] == latents;
  });
  if (fitting.empty() && !vaes.empty()) fitting.push_back(vaes.front());
  return fitting;
}

std::string paths_of(const Some &some) {
  std::vector<std::string> paths;
  for (const FoundComponent *component : some) paths.push_back(component->files.path());
  return list_names(paths, paths.size());
}

/// What lies in a directory and the places that ComfyUI, Diffusers and publishers of GGUF have for
/// components.
class Listing {
 public:
  explicit Listing(const fs::path &directory, std::string part = {})
      : directory_(directory), part_(std::move(part)) {
    for (const char *part : {"", "diffusion_models", "unet", "HighNoise", "LowNoise", "text_encoders", "clip",
                             "text_encoder", "vae", "VAE", "clip_vision", "image_encoder"})
      scan(part[0] ? directory / part : directory);
  }

  Some all(Kind kind) const {
    Some some;
    for (const FoundComponent &component : components_)
      if (component.kind == kind) some.push_back(&component);
    return some;
  }

  bool has(Kind kind) const { return !all(kind).empty(); }
  const FoundComponent &only(Kind kind) const { return only(kind, all(kind)); }
  const FoundComponent &only_vae(int64_t latents) const {
    return only(Kind::kVae, vaes_of(all(Kind::kVae), latents));
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
    if (components_.empty())
      return not_found("'" + directory_.string() +
                       "' is no checkpoint: it has neither a model_index.json, as Diffusers' have, nor "
                       "high_noise_model and low_noise_model, nor a .safetensors or .gguf of a transformer, "
                       "a text encoder or a VAE");
    std::vector<std::string> found;
    for (const FoundComponent &component : components_)
      found.push_back(component.files.path() + " (" + describe(component) + ")");
    return not_found(start + "; it has " + list_names(found, found.size()));
  }

 private:
  const FoundComponent &only(Kind kind, const Some &some) const {
    if (some.empty()) throw missing("a " + name_of(kind));
    if (some.size() > 1) throw ambiguous("the " + name_of(kind), some);
    return *some.front();
  }

  void scan(const fs::path &directory) {
    std::error_code status;
    std::set<fs::path> files;  // in the same order on every machine
    for (fs::directory_iterator entry(directory, status), end; !status && entry != end;
         entry.increment(status))
      files.insert(entry->path());
    if (status && status != std::errc::no_such_file_or_directory && status != std::errc::not_a_directory)
      throw invalid("The directory '" + directory.string() + "' cannot be read: " + status.message());
    std::set<std::string> stems, sharded;
    std::vector<fs::path> torch_files, ggufs;
    for (const fs::path &file : files) {
      const std::string name = file.filename().string(), extension = lower_case(file.extension().string());
      if (is_pickle(file))
        (is_torch_file(file) ? torch_files.push_back(file) : pickles_.push_back(file.string()));
      else if (is_gguf(file))
        ggufs.push_back(file);
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
    for (const fs::path &file : torch_files)
      if (!stems.contains(file.stem().string()))
        add({directory, file.stem().string(), Naming::kDiffusers, {}, file.extension().string(), part_});
    for (const fs::path &file : ggufs)
      add({directory, file.stem().string(), Naming::kDiffusers, {}, file.extension().string()});
  }

  static bool is_torch_file(const fs::path &file) {
    try {
      const InputFile input(file);
      return is_zip(input.read(0, std::min<uint64_t>(input.size(), 4)));
    } catch (const Error &) {
      return false;  // named among the others where something is missing
    }
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
      for (const TensorFile &file : open_files(files))
        for (const auto &[name, entry] : file.tensors()) stored[name] = entry.shape;
      if (auto found = FoundComponent::recognise(files, stored)) components_.push_back(*std::move(found));
    } catch (const Error &error) {
      unreadable_.push_back(error.what());
    }
  }

  /// What is not even opened, for an error.
  std::string others() const {
    return pickles_.empty() ? "" : "; these pickles are not read: " + list_names(pickles_);
  }

  const fs::path directory_;
  const std::string part_;
  std::vector<FoundComponent> components_;
  std::vector<std::string> pickles_;
  std::vector<std::string> unreadable_;  // a sentence for each
};

/// What the original release calls models of so many input channels.
constexpr std::pair<std::string_view, int64_t> kModelTypes[] = {{"t2v", kLatents},
                                                                {"i2v", kChannelsWithPicture},
                                                                {"flf2v", kChannelsWithPicture},
                                                                {"ti2v", kSmallLatents}};

/// The config.json of the original release, beside an expert; nothing in it but this is not in the shapes
/// too.
void apply_original_config(const fs::path &path, TransformerConfig &config) {
  const JsonFile file(path);
  const std::string type = file.get<std::string>("model_type", "t2v");
  const auto known = std::ranges::find(kModelTypes, type, &std::pair<std::string_view, int64_t>::first);
  if (known == std::end(kModelTypes))
    throw file.error("model_type",
                     "is '" + printable(type) + "', but only t2v, i2v, flf2v and ti2v are supported");
  if (file.has("model_type") && known->second != config.in_channels)
    throw file.error("model_type", "is '" + type + "', which does not fit the " +
                                       std::to_string(config.in_channels) + " input channels of the weights");
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

/// Of a transformer in the place of one for `task`.
Error wrong_task(const FoundComponent &found, const std::string &task) {
  return invalid(found.files.path() + " is a " + describe(found) +
                 (found.other_task() ? ", which is not supported" : ", and the others are for " + task));
}

/// Experts of each kind of noise, and those whose names do not tell.
using ByNoise = std::map<Noise, Some>;

ByNoise by_noise(const Some &experts) {
  ByNoise sorted;
  for (const FoundComponent *expert : experts) sorted[noise_of(*expert)].push_back(expert);
  return sorted;
}

/// Transformers that may be meant, all of one task, and others, which are named where one of these is
/// missing.
struct Candidates {
  std::string task;
  Some meant, others;
};

/// Those for text to video, or else the only others that are supported.
Candidates candidates(const fs::path &directory, const Some &transformers) {
  Candidates found;
  std::map<std::string, Some> tasks;
  for (const FoundComponent *transformer : transformers)
    if (!transformer->other_task()) tasks[transformer->task()].push_back(transformer);
  const auto meant = tasks.contains(kTextToVideo) ? tasks.find(kTextToVideo) : tasks.begin();
  if (meant != tasks.end()) {
    found.task = meant->first;
    found.meant = meant->second;
    if (found.task != kTextToVideo && tasks.size() > 1)
      throw invalid("'" + directory.string() + "' has transformers of several models: " +
                    paths_of(transformers) + "; leave those of one of them there");
  }
  std::ranges::copy_if(transformers, std::back_inserter(found.others), [&](const FoundComponent *other) {
    return std::ranges::find(found.meant, other) == found.meant.end();
  });
  return found;
}

/// Of the two experts, the one for this noise.
const FoundComponent &only_expert(const Listing &listing, const Candidates &candidates, Noise noise) {
  const std::string name = noise == Noise::kHigh ? "high" : "low";
  const Some some = by_noise(candidates.meant)[noise], others = by_noise(candidates.others)[noise];
  if (some.size() > 1) throw listing.ambiguous("the expert for " + name + " noise", some);
  if (!some.empty()) return *some.front();
  if (!others.empty()) throw wrong_task(*others.front(), candidates.task);
  throw listing.missing("a transformer with " + name + "_noise in its name");
}

/// Among single files: a pair by their names, or one without either name.
Experts choose_experts(const fs::path &directory, const Listing &listing) {
  const Candidates found = candidates(directory, listing.all(Kind::kTransformer));
  const Some unknown = by_noise(found.meant)[Noise::kUnknown];
  if (found.meant.size() > unknown.size()) {
    const FoundComponent &high = only_expert(listing, found, Noise::kHigh);
    const FoundComponent &low = only_expert(listing, found, Noise::kLow);
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
  if (unknown.empty() && !found.others.empty()) throw wrong_task(*found.others.front(), found.task);
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
  if (found.other_task()) throw wrong_task(found, {});
  TransformerConfig config = found.transformer_config();
  if (has_config) apply_original_config(found.files.directory / "config.json", config);
  return config;
}

VaeConfig vae_config(const FoundComponent &vae, const TransformerConfig &transformer) {
  const auto weight = vae.shapes.find("post_quant_conv.weight");
  const int64_t latents = weight == vae.shapes.end() || weight->second.empty() ? 0 : weight->second[0];
  if (latents && latents != transformer.out_channels)
    throw invalid(vae.files.path() + ": a VAE with " + std::to_string(latents) +
                  " latent channels does not fit the transformer, which has " +
                  std::to_string(transformer.out_channels));
  return vae.vae_config();
}

}  // namespace

std::optional<FoundComponent> FoundComponent::recognise(const ComponentFiles &files,
                                                        const TensorShapes &stored) {
  for (const std::string prefix : kPrefixes)
    for (const Sign &sign : kSigns) {
      if (!stored.contains(prefix + sign.tensor)) continue;
      FoundComponent found = {sign.kind, files, {}};
      found.files.naming = sign.naming;
      found.files.prefix = prefix;
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
  static const std::pair<const char *, const char *> tasks[] = {{"vace_", "VACE"},
                                                                {"face_adapter", "Wan-Animate"},
                                                                {"audio", "sound to video"},
                                                                {"control_adapter", "a camera's control"}};
  for (const auto &[part, task] : tasks)
    for (const auto &[tensor, shape] : shapes)
      if (tensor.find(part) != std::string::npos) return task;
  const int64_t channels = in_channels();
  if (channels == kLatents || channels == kChannelsWithPicture || channels == kSmallLatents) return {};
  return "another task (its in_channels are " + std::to_string(channels) + ")";
}

std::string FoundComponent::task() const {
  if (const std::optional<std::string> other = other_task()) return *other;
  if (shapes.contains("condition_embedder.image_embedder.pos_embed"))
    return "first and last frame to video of Wan 2.1 (it has a pos_embed_seq_len)";
  if (std::ranges::any_of(shapes, [](const auto &tensor) { return is_of_image(tensor.first); }))
    return "image to video of Wan 2.1 (it has an image_dim)";
  const int64_t channels = in_channels();
  if (channels == kLatents) return kTextToVideo;
  return std::string(channels == kSmallLatents ? "TI2V-5B" : "image to video") + " (its in_channels are " +
         std::to_string(channels) + ", not " + std::to_string(kLatents) + ")";
}

/// Where the shape does not tell, those of text to video: what is wrong with it, transformer_config() says.
int64_t FoundComponent::in_channels() const {
  const auto patch = shapes.find("patch_embedding.weight");
  const bool tells = patch != shapes.end() && patch->second.size() == 5 && patch->second[1] > 0;
  return tells ? patch->second[1] : kLatents;
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
  Json values = {{"_class_name", "WanTransformer3DModel"},
                 {"patch_size", {length(patch, 2, 5), length(patch, 3, 5), length(patch, 4, 5)}},
                 {"num_attention_heads", width / kHeadDim},
                 {"attention_head_dim", kHeadDim},
                 {"in_channels", length(patch, 1, 5)},
                 {"out_channels", length("proj_out.weight", 0, 2) / area},
                 {"text_dim", length(embedder + "text_embedder.linear_1.weight", 1, 2)},
                 {"freq_dim", length(embedder + "time_embedder.linear_1.weight", 1, 2)},
                 {"ffn_dim", length("blocks.0.ffn.net.0.proj.weight", 0, 2)},
                 {"num_layers", count_blocks("blocks.", ".scale_shift_table")}};
  if (std::ranges::any_of(shapes, [](const auto &tensor) { return is_of_image(tensor.first); })) {
    values["image_dim"] = length(embedder + "image_embedder.norm1.weight", 0, 1);
    values["added_kv_proj_dim"] = width;
  }
  if (const std::string position = embedder + "image_embedder.pos_embed"; shapes.contains(position))
    values["pos_embed_seq_len"] = length(position, 1, 3);
  return TransformerConfig::parse(json(values));
}

VaeConfig FoundComponent::vae_config() const {
  const int64_t latents = length("post_quant_conv.weight", 0, 5);
  if (latents == kSmallLatents)
    return VaeConfig::parse(json({{"_class_name", "AutoencoderKLWan"},
                                  {"base_dim", length("encoder.conv_in.weight", 0, 5)},
                                  {"decoder_base_dim", length("decoder.norm_out.gamma", 0, 4)},
                                  {"z_dim", latents},
                                  {"is_residual", true},
                                  {"patch_size", 2},
                                  {"in_channels", length("encoder.conv_in.weight", 1, 5)},
                                  {"out_channels", length("decoder.conv_out.weight", 0, 5)},
                                  {"latents_mean", kSmallLatentsMean},
                                  {"latents_std", kSmallLatentsStd}}));
  if (latents != kLatents)
    throw invalid(files.path() + ": a VAE with " + std::to_string(latents) +
                  " latent channels is not supported; Wan's have " + std::to_string(kLatents) + " or " +
                  std::to_string(kSmallLatents));
  return VaeConfig::parse(json({{"_class_name", "AutoencoderKLWan"},
                                {"base_dim", length("decoder.norm_out.gamma", 0, 4)},
                                {"z_dim", latents},
                                {"latents_mean", kLatentsMean},
                                {"latents_std", kLatentsStd}}));
}

CLIPVisionConfig FoundComponent::image_encoder_config() const {
  const std::string embeddings = "vision_model.embeddings.", layers = "vision_model.encoder.layers.";
  const int64_t width = length(embeddings + "class_embedding", 0, 1);
  const int64_t patch = length(embeddings + "patch_embedding.weight", 2, 4);
  const auto patches = static_cast<double>(length(embeddings + "position_embedding.weight", 0, 2) - 1);
  return CLIPVisionConfig::parse(json({{"model_type", "clip_vision_model"},
                                       {"hidden_act", "gelu"},
                                       {"hidden_size", width},
                                       {"intermediate_size", length(layers + "0.mlp.fc1.weight", 0, 2)},
                                       {"num_hidden_layers", count_blocks(layers, ".layer_norm1.weight")},
                                       {"num_attention_heads", std::max<int64_t>(1, width / kClipHeadDim)},
                                       {"image_size", patch * static_cast<int64_t>(std::sqrt(patches))},
                                       {"patch_size", patch}}));
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

namespace {

/// The encoders of text and the VAE, of the directory or, where they are missing there, of another model.
void find_shared(const Listing &listing, const std::optional<CheckpointConfig> &other,
                 CheckpointConfig &config) {
  if (!other || listing.has(Kind::kTextEncoder)) {
    const FoundComponent &text_encoder = listing.only(Kind::kTextEncoder);
    config.tokenizer = find_tokenizer(config.directory);
    config.text_encoder = text_encoder.text_encoder_config();
    config.files["text_encoder"] = text_encoder.files;
  } else {
    config.tokenizer = other->tokenizer;
    config.text_encoder = other->text_encoder;
    config.files["text_encoder"] = other->files.at("text_encoder");
  }
  if (!other || listing.has(Kind::kVae)) {
    const FoundComponent &vae = listing.only_vae(config.transformer.out_channels);
    config.files["vae"] = vae.files;
    config.vae = vae_config(vae, config.transformer);
  } else {
    config.vae = other->vae;
    config.files["vae"] = other->files.at("vae");
  }
}

}  // namespace

CheckpointConfig read_single_files(const fs::path &directory, const JsonFile &suggestions) {
  const Listing listing(directory, suggestions.get<std::string>("state_dict", ""));
  const Experts experts = find_experts(directory, listing);
  const std::optional<CheckpointConfig> other = read_components_beside(directory, suggestions);
  CheckpointConfig config{};
  config.directory = directory;
  config.transformer = transformer_config(experts.transformer, experts.have_config);
  config.files["transformer"] = experts.transformer.files;
  if (experts.transformer_2) {
    config.transformer_2 = transformer_config(*experts.transformer_2, experts.have_config);
    config.files["transformer_2"] = experts.transformer_2->files;
  }
  find_shared(listing, other, config);
  if (config.transformer.image_dim) {
    const FoundComponent &image_encoder = listing.only(Kind::kImageEncoder);
    config.image_encoder = image_encoder.image_encoder_config();
    config.files["image_encoder"] = image_encoder.files;
  }
  config.expand_timesteps = config.vae.z_dim == kSmallLatents;
  config.scheduler = {WAN_SCHEDULER_UNIPC, 1, kTrainTimesteps};
  const Variant &variant = config.find_variant();
  if (config.transformer_2 && !variant.boundary_ratio)
    throw invalid("'" + directory.string() + "' has two experts, and " + variant.name +
                  " has one: leave one transformer there");
  if (config.transformer_2) config.boundary_ratio = variant.boundary_ratio;
  config.scheduler.flow_shift = variant.flow_shift;
  return config;
}

ComponentFiles image_encoder_files(const fs::path &directory) {
  const ComponentFiles files = {directory, "model"};
  TensorShapes stored;
  for (const TensorFile &file : open_files(files))
    for (const auto &[name, entry] : file.tensors()) stored[name] = entry.shape;
  const auto found = FoundComponent::recognise(files, stored);
  return found ? found->files : files;
}

}  // namespace wan
