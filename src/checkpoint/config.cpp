// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <string_view>
#include <utility>

#include "checkpoint/gguf.h"
#include "checkpoint/input_file.h"
#include "checkpoint/layout.h"

namespace wan {

namespace {

// Above every real width and every real product of two that make one; low enough that the size of a tensor
// stays in int64.
constexpr int64_t kMaxDim = 1 << 20;
constexpr int64_t kMaxPositions = 1 << 14;  // the released models' is 1024
constexpr double kMaxEpsilon = 1, kMinShift = 1e-3;

void require_class(const JsonFile &file, const std::vector<std::string> &expected) {
  const std::string found = file.get<std::string>("_class_name", "");
  if (std::ranges::find(expected, found) == expected.end())
    throw file.error("_class_name",
                     "is '" + printable(found) + "', but only " + expected.front() + " is supported");
}

int64_t dimension(const JsonFile &file, const char *key, int64_t fallback) {
  return file.integer(key, fallback, 1, kMaxDim);
}

/// The width that is the product of two values.
void check_product(const JsonFile &file, const char *key, int64_t value, const std::string &other,
                   int64_t other_value) {
  if (value * other_value > kMaxDim)
    throw file.error(key, "times " + other + " must be at most " + std::to_string(kMaxDim));
}

double bounded_epsilon(const JsonFile &file, const char *key, double fallback = 1e-6) {
  return file.number(key, fallback, 1e-30, kMaxEpsilon);
}

double bounded_shift(const JsonFile &file, const char *key) {
  return file.number(key, 1.0, kMinShift, kMaxShift);
}

/// Refuses what the code does not do, rather than doing something else.
template <typename T>
void require(const JsonFile &file, const char *key, const T &only, const char *spelled) {
  if (file.has(key) && *file.find<T>(key) != only)
    throw file.error(key, std::string("must be ") + spelled + ": nothing else is supported");
}

void require_null(const JsonFile &file, const char *key, const char *meaning) {
  if (file.has(key)) throw file.error(key, std::string("is set: ") + meaning + " is not supported");
}

/// True where model_index.json has a component; it must be of the class given.
bool has_component(const JsonFile &index, const char *name, const std::vector<std::string> &classes) {
  if (!index.has(name)) return false;
  const Json &entry = index.json().at(name);
  if (!entry.is_array() || entry.size() != 2) throw index.error(name, "must be a pair of library and class");
  const Json &type = entry[1];
  if (type.is_null()) return false;
  for (const std::string &expected : classes)
    if (type == expected) return true;
  throw index.error(name,
                    "is a " + printable(type.dump()) + ", but only " + classes.front() + " is supported");
}

void require_component(const JsonFile &index, const char *name, const std::vector<std::string> &classes) {
  if (!has_component(index, name, classes)) throw index.error(name, "is missing");
}

/// A residual VAE's shortcuts exchange channels for pixels, of which a stage has 4 for each of the next, and
/// the last stage 1.
void check_shortcuts(const JsonFile &file, const std::vector<int64_t> &dim_mult) {
  int64_t before = 1;
  for (size_t i = 0; i < dim_mult.size(); before = dim_mult[i++]) {
    const int64_t pixels = i + 1 < dim_mult.size() ? 4 : 1;
    if (dim_mult[i] % before || pixels % (dim_mult[i] / before))
      throw file.error("dim_mult",
                       "must grow from 1 by factors of 1, 2 or 4, at last by 1, where is_residual is true");
  }
}

/// A whole number that is all of the text, or 0.
int32_t whole_number(std::string_view text) {
  int32_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  return status == std::errc() && end == text.data() + text.size() ? value : 0;
}

void parse_framerate(const JsonFile &file, const Variant &variant, WanDefaults &defaults) {
  const std::string text = file.get<std::string>("framerate", std::to_string(variant.framerate) + "/1");
  const size_t slash = std::min(text.find('/'), text.size());
  defaults.fps_n = whole_number(std::string_view(text).substr(0, slash));
  defaults.fps_d = whole_number(std::string_view(text).substr(std::min(slash + 1, text.size())));
  if (defaults.fps_n < 1 || defaults.fps_d < 1)
    throw file.error("framerate", "must be a fraction such as \"16/1\"");
  const double rate = static_cast<double>(defaults.fps_n) / defaults.fps_d;
  if (rate < 1e-2 || rate > 1e3) throw file.error("framerate", "must be from 1/100 to 1000/1");
}

const std::vector<std::string> kTransformers = {"WanTransformer3DModel", "CausalWanTransformer3DModel"};

/// What "components" of gst-wan.json names.
std::optional<std::filesystem::path> directory_beside(const std::filesystem::path &directory,
                                                      const JsonFile &suggestions) {
  const auto other = suggestions.find<std::string>("components");
  if (!other) return std::nullopt;
  constexpr std::string_view kBeside = "../";
  const std::filesystem::path name = other->starts_with(kBeside) ? other->substr(kBeside.size()) : "";
  if (name.empty() || name != name.filename() || name == "." || name == "..")
    throw suggestions.error("components", "must be the directory of a model beside this one, as \"../NAME\"");
  return directory / ".." / name;
}

/// The directory of a component: in that of the model, or, if it is not there, in the one beside it.
std::filesystem::path component_directory(const std::filesystem::path &directory, const JsonFile &suggestions,
                                          const char *component) {
  const auto other = directory_beside(directory, suggestions);
  return other && !is_there(directory / component) ? *other / component : directory / component;
}

/// A causal model has a sampler of its own.
SchedulerConfig read_scheduler(const JsonFile &index, const std::filesystem::path &directory, bool causal) {
  constexpr int64_t kTrainTimesteps = 1000;
  if (causal) return {WAN_SCHEDULER_UNIPC, 1, kTrainTimesteps};
  require_component(index, "scheduler", {"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"});
  return SchedulerConfig::parse(JsonFile(directory / "scheduler_config.json"));
}

/// Where the experts of a causal model change each other does not stand in its files.
std::optional<double> read_boundary(const JsonFile &index, bool two_experts, bool causal) {
  if (index.has("boundary_ratio")) return index.number("boundary_ratio", 0, 0, 1);
  if (two_experts && causal) return CausalConfig::preset("fastvideo-a14b")->boundary_ratio;
  return std::nullopt;
}

CheckpointConfig read_diffusers(const std::filesystem::path &directory, const JsonFile &suggestions) {
  const JsonFile index(directory / "model_index.json");
  require_class(index, {"WanPipeline", "WanImageToVideoPipeline", "WanCausalDMDPipeline"});
  require_component(index, "transformer", kTransformers);
  require_component(index, "vae", {"AutoencoderKLWan"});
  require_component(index, "text_encoder", {"UMT5EncoderModel"});
  require_component(index, "tokenizer", {"T5TokenizerFast", "T5Tokenizer"});

  const auto directory_of = [&](const char *component) {
    return component_directory(directory, suggestions, component);
  };
  CheckpointConfig config{};
  config.directory = directory;
  config.tokenizer = directory_of("tokenizer");
  config.expand_timesteps = index.get<bool>("expand_timesteps", false);
  const bool has_transformer_2 = has_component(index, "transformer_2", kTransformers);
  const auto config_of = [&](const char *component) {
    return JsonFile(directory_of(component) / "config.json");
  };
  config.transformer = TransformerConfig::parse(config_of("transformer"));
  const bool causal = config.transformer.is_causal || suggestions.has("causal");
  config.boundary_ratio = read_boundary(index, has_transformer_2, causal);
  if (config.boundary_ratio.has_value() != has_transformer_2)
    throw index.error("boundary_ratio", "and transformer_2 must be there together");
  if (has_transformer_2) config.transformer_2 = TransformerConfig::parse(config_of("transformer_2"));
  config.vae = VaeConfig::parse(config_of("vae"));
  config.text_encoder = TextEncoderConfig::parse(config_of("text_encoder"));
  config.scheduler = read_scheduler(index, directory_of("scheduler"), causal);
  // Some pipelines have one that their transformer does not take.
  if (config.transformer.image_dim) {
    require_component(index, "image_encoder", {"CLIPVisionModel", "CLIPVisionModelWithProjection"});
    config.image_encoder = CLIPVisionConfig::parse(config_of("image_encoder"));
    config.files["image_encoder"] = image_encoder_files(directory / "image_encoder");
  }
  for (const char *component : {"transformer", "transformer_2", "vae"})
    config.files[component] = {directory_of(component), "diffusion_pytorch_model"};
  config.files["text_encoder"] = {directory_of("text_encoder"), "model"};
  return config;
}

using RequireFit = std::function<void(bool fits, const char *component, const std::string &what)>;

void check_experts(const TransformerConfig &first, const TransformerConfig &second,
                   const RequireFit &require_fit) {
  require_fit(second.in_channels == first.in_channels && second.out_channels == first.out_channels &&
                  second.text_dim == first.text_dim && second.patch_width == first.patch_width &&
                  second.image_dim == first.image_dim && second.pos_embed_seq_len == first.pos_embed_seq_len,
              "transformer_2",
              "in_channels, out_channels, text_dim, patch_size, image_dim and pos_embed_seq_len must equal "
              "transformer's");
}

void check_clip(const CheckpointConfig &config, const RequireFit &require_fit) {
  if (!config.image_encoder) return;
  require_fit(config.transformer.image_dim == config.image_encoder->hidden_size, "transformer",
              "image_dim must equal the image encoder's hidden_size");
  const int64_t tokens = 2 * (1 + config.image_encoder->num_patches());
  require_fit(
      config.transformer.pos_embed_seq_len.value_or(tokens) == tokens, "transformer",
      "pos_embed_seq_len must be the image encoder's tokens of two pictures, " + std::to_string(tokens));
}

/// The parts of a checkpoint must fit each other.
void check_fit(const CheckpointConfig &config) {
  const auto require_fit = [&config](bool fits, const char *component, const std::string &what) {
    if (!fits) throw invalid(config.files.at(component).directory.string() + ": " + what);
  };
  const TransformerConfig &first = config.transformer;
  check_experts(first, config.transformer_2.value_or(first), require_fit);
  const int64_t z_dim = config.vae.z_dim, with_picture = 2 * z_dim + config.vae.temporal_scale();
  require_fit(
      first.out_channels == z_dim && (first.in_channels == z_dim || first.in_channels == with_picture),
      "transformer",
      "in_channels and out_channels must equal the VAE's z_dim, or in_channels be " +
          std::to_string(with_picture) + " for image to video");
  require_fit(first.text_dim == config.text_encoder.d_model, "transformer",
              "text_dim must equal the text encoder's d_model");
  check_clip(config, require_fit);
}

ModelTraits traits_of(const CheckpointConfig &config) {
  const bool has_channels = config.transformer.in_channels != config.vae.z_dim;
  const PictureInput input = has_channels              ? PictureInput::kChannels
                             : config.expand_timesteps ? PictureInput::kCleanFrame
                                                       : PictureInput::kNone;
  return {input, config.image_encoder.has_value(), config.transformer.pos_embed_seq_len.has_value(),
          config.transformer_2.has_value()};
}

/// What is different where videos have no end.
void describe_causal(const CausalConfig &causal, int64_t temporal_scale, WanDefaults &defaults) {
  defaults.num_frames = 0;
  defaults.steps = static_cast<int32_t>(causal.steps());
  defaults.guidance_scale = defaults.guidance_scale_2 = 1;
  defaults.flow_shift = causal.flow_shift;
  defaults.scheduler = WAN_SCHEDULER_AUTO;
  defaults.pictures[WAN_PICTURE_FIRST] =
      causal.image_start == ImageStart::kNone ? WAN_PICTURE_REFUSED : WAN_PICTURE_OPTIONAL;
  defaults.pictures[WAN_PICTURE_LAST] = WAN_PICTURE_REFUSED;
  defaults.endless = true;
  defaults.section_latents = static_cast<int32_t>(causal.num_frames_per_block);
  defaults.section_frames = static_cast<int32_t>(causal.num_frames_per_block * temporal_scale);
  defaults.first_section_frames = static_cast<int32_t>((causal.first_block - 1) * temporal_scale + 1);
  defaults.prompt_switch = causal.prompt_switch;
}

/// Where pictures come through CLIP, its tokens have the width of `image_dim`.
void parse_image_branch(const JsonFile &file, TransformerConfig &config) {
  const char *const clip = "without an image_dim (conditioning on a CLIP image)";
  if (!file.has("image_dim")) {
    require_null(file, "added_kv_proj_dim", clip);
    return require_null(file, "pos_embed_seq_len", clip);
  }
  config.image_dim = dimension(file, "image_dim", 0);
  if (file.integer("added_kv_proj_dim", 0, 0, kMaxDim) != config.inner_dim())
    throw file.error("added_kv_proj_dim", "must be the transformer's width, " +
                                              std::to_string(config.inner_dim()) +
                                              ", where 'image_dim' is set");
  if (file.has("pos_embed_seq_len"))
    config.pos_embed_seq_len = file.integer("pos_embed_seq_len", 0, 1, kMaxPositions);
}

}  // namespace

TransformerConfig TransformerConfig::parse(const JsonFile &file) {
  require_class(file, kTransformers);
  require(file, "cross_attn_norm", true, "true");
  require(file, "qk_norm", std::string("rms_norm_across_heads"), "\"rms_norm_across_heads\"");
  const auto patch = file.get<std::vector<int64_t>>("patch_size", {1, 2, 2});
  if (patch.size() != 3 || patch[0] != 1 || patch[1] < 1 || patch[2] != patch[1] || patch[1] > 16)
    throw file.error("patch_size", "must be [1, p, p]");
  TransformerConfig config{};
  config.is_causal = file.get<std::string>("_class_name", "") == kTransformers.back();
  config.num_attention_heads = dimension(file, "num_attention_heads", 40);
  config.attention_head_dim = dimension(file, "attention_head_dim", 128);
  if (config.attention_head_dim % 2 || config.attention_head_dim < 6)
    throw file.error("attention_head_dim", "must be an even number from 6 on");
  check_product(file, "num_attention_heads", config.num_attention_heads, "attention_head_dim",
                config.attention_head_dim);
  config.in_channels = dimension(file, "in_channels", 16);
  config.out_channels = dimension(file, "out_channels", config.in_channels);
  for (const auto &[key, channels] :
       {std::pair{"in_channels", config.in_channels}, std::pair{"out_channels", config.out_channels}})
    check_product(file, key, channels, "the area of patch_size", patch[1] * patch[2]);
  config.text_dim = dimension(file, "text_dim", 4096);
  config.freq_dim = dimension(file, "freq_dim", 256);
  if (config.freq_dim % 2) throw file.error("freq_dim", "must be even");
  config.ffn_dim = dimension(file, "ffn_dim", 13824);
  config.num_layers = file.integer("num_layers", 40, 1, 1000);
  config.patch_height = patch[1];
  config.patch_width = patch[2];
  config.rope_max_seq_len = file.integer("rope_max_seq_len", 1024, 1, kMaxPositions);
  config.eps = bounded_epsilon(file, "eps");
  parse_image_branch(file, config);
  return config;
}

VaeConfig VaeConfig::parse(const JsonFile &file) {
  require_class(file, {"AutoencoderKLWan"});
  if (!file.get<std::vector<double>>("attn_scales", {}).empty())
    throw file.error("attn_scales", "must be empty: nothing else is supported");
  VaeConfig config{};
  config.base_dim = dimension(file, "base_dim", 96);
  config.z_dim = dimension(file, "z_dim", 16);
  config.num_res_blocks = file.integer("num_res_blocks", 2, 1, 100);
  if (file.has("decoder_base_dim")) config.decoder_base_dim = dimension(file, "decoder_base_dim", 0);
  config.is_residual = file.get<bool>("is_residual", false);
  config.patch_size = file.integer("patch_size", 1, 1, 8);
  const std::string channels = std::to_string(config.picture_channels());
  for (const char *key : {"in_channels", "out_channels"})
    if (file.integer(key, 3, 1, kMaxDim) != config.picture_channels())
      throw file.error(key, "must be 3 times the square of patch_size, " + channels);
  config.dim_mult = file.get<std::vector<int64_t>>("dim_mult", {1, 2, 4, 4});
  if (config.dim_mult.size() < 2 || config.dim_mult.size() > 8)
    throw file.error("dim_mult", "must have 2 to 8 entries");
  for (const int64_t factor : config.dim_mult) {
    if (factor < 1 || factor > 64) throw file.error("dim_mult", "must hold whole numbers from 1 to 64");
    check_product(file, "base_dim", config.base_dim, "each entry of dim_mult", factor);
    if (config.decoder_base_dim)
      check_product(file, "decoder_base_dim", *config.decoder_base_dim, "each entry of dim_mult", factor);
    // The doubling of height and width leaves half of the channels.
    if (config.decoder_base_dim.value_or(config.base_dim) * factor < 2)
      throw file.error("base_dim", "times each entry of dim_mult must be at least 2");
  }
  if (config.is_residual) check_shortcuts(file, config.dim_mult);
  const auto downsample = file.get<std::vector<bool>>("temperal_downsample", {false, true, true});
  if (downsample.size() != config.dim_mult.size() - 1)
    throw file.error("temperal_downsample", "must have one entry less than dim_mult");
  config.temporal_upsample.assign(downsample.rbegin(), downsample.rend());
  for (const auto &[key, scale] : {std::pair{"scale_factor_temporal", config.temporal_scale()},
                                   std::pair{"scale_factor_spatial", config.spatial_scale()}})
    if (file.integer(key, scale, 1, kMaxDim) != scale)
      throw file.error(key, "must be what the stages come to, " + std::to_string(scale));
  for (const auto &[key, values] :
       {std::pair{"latents_mean", &config.latents_mean}, std::pair{"latents_std", &config.latents_std}}) {
    if (!file.has(key)) throw file.error(key, "is missing");
    *values = *file.find<std::vector<double>>(key);
    if (values->size() != static_cast<size_t>(config.z_dim))
      throw file.error(key, "must have z_dim (" + std::to_string(config.z_dim) + ") values");
  }
  for (const double mean : config.latents_mean)
    if (!(std::abs(mean) <= 1e4)) throw file.error("latents_mean", "must hold numbers from -1e4 to 1e4");
  for (const double deviation : config.latents_std)
    if (!(deviation >= 1e-4 && deviation <= 1e4))
      throw file.error("latents_std", "must hold numbers from 1e-4 to 1e4");
  return config;
}

std::vector<int64_t> VaeConfig::decoder_dims() const {
  std::vector<int64_t> dims;
  for (auto factor = dim_mult.rbegin(); factor != dim_mult.rend(); ++factor)
    dims.push_back(decoder_base_dim.value_or(base_dim) * *factor);
  return dims;
}

std::vector<int64_t> VaeConfig::encoder_dims() const {
  std::vector<int64_t> dims;
  for (const int64_t factor : dim_mult) dims.push_back(base_dim * factor);
  return dims;
}

int64_t VaeConfig::temporal_scale() const {
  int64_t scale = 1;
  for (const bool upsample : temporal_upsample) scale *= upsample ? 2 : 1;
  return scale;
}

TextEncoderConfig TextEncoderConfig::parse(const JsonFile &file) {
  const std::string type = file.get<std::string>("model_type", "");
  if (type != "umt5")
    throw file.error("model_type", "is '" + printable(type) + "', but only umt5 is supported");
  const std::string projection = file.get<std::string>("feed_forward_proj", "gated-gelu");
  if (projection != "gated-gelu")
    throw file.error("feed_forward_proj",
                     "is '" + printable(projection) + "', but only gated-gelu is supported");
  TextEncoderConfig config{};
  config.vocab_size = dimension(file, "vocab_size", 256384);
  config.d_model = dimension(file, "d_model", 4096);
  config.d_kv = dimension(file, "d_kv", 64);
  config.d_ff = dimension(file, "d_ff", 10240);
  config.num_layers = file.integer("num_layers", 24, 1, 1000);
  config.num_heads = dimension(file, "num_heads", 64);
  check_product(file, "num_heads", config.num_heads, "d_kv", config.d_kv);
  config.relative_attention_num_buckets = file.integer("relative_attention_num_buckets", 32, 4, 4096);
  config.relative_attention_max_distance = dimension(file, "relative_attention_max_distance", 128);
  if (config.relative_attention_max_distance <= config.relative_attention_num_buckets / 4)
    throw file.error("relative_attention_max_distance", "is too small for relative_attention_num_buckets");
  config.layer_norm_epsilon = bounded_epsilon(file, "layer_norm_epsilon");
  return config;
}

CLIPVisionConfig CLIPVisionConfig::parse(const JsonFile &file) {
  const std::string type = file.get<std::string>("model_type", "");
  if (type != "clip_vision_model")
    throw file.error("model_type", "is '" + printable(type) + "', but only clip_vision_model is supported");
  const std::string activation = file.get<std::string>("hidden_act", "quick_gelu");
  if (activation != "gelu")
    throw file.error("hidden_act", "is '" + printable(activation) + "', but only gelu is supported");
  require(file, "num_channels", int64_t{3}, "3");
  CLIPVisionConfig config{};
  config.hidden_size = dimension(file, "hidden_size", 768);
  config.intermediate_size = dimension(file, "intermediate_size", 3072);
  config.num_hidden_layers = file.integer("num_hidden_layers", 12, 1, 1000);
  config.num_attention_heads = dimension(file, "num_attention_heads", 12);
  if (config.hidden_size % config.num_attention_heads)
    throw file.error("hidden_size", "must be a multiple of num_attention_heads");
  config.image_size = file.integer("image_size", 224, 1, 4096);
  config.patch_size = file.integer("patch_size", 32, 1, config.image_size);
  config.layer_norm_eps = bounded_epsilon(file, "layer_norm_eps", 1e-5);
  return config;
}

SchedulerConfig SchedulerConfig::parse(const JsonFile &file) {
  const std::string name = file.get<std::string>("_class_name", "");
  SchedulerConfig config{};
  config.num_train_timesteps = file.integer("num_train_timesteps", 1000, 100, 10000);
  if (name == "UniPCMultistepScheduler") {
    config.scheduler = WAN_SCHEDULER_UNIPC;
    config.flow_shift = bounded_shift(file, "flow_shift");
    require(file, "prediction_type", std::string("flow_prediction"), "\"flow_prediction\"");
    require(file, "use_flow_sigmas", true, "true");
    require(file, "solver_order", int64_t{2}, "2");
    require(file, "solver_type", std::string("bh2"), "\"bh2\"");
    require(file, "predict_x0", true, "true");
    require(file, "lower_order_final", true, "true");
    require(file, "final_sigmas_type", std::string("zero"), "\"zero\"");
    require(file, "thresholding", false, "false");
    require_null(file, "solver_p", "another solver for the first steps");
    if (!file.get<std::vector<int64_t>>("disable_corrector", {}).empty())
      throw file.error("disable_corrector", "must be empty: nothing else is supported");
  } else if (name == "FlowMatchEulerDiscreteScheduler") {
    config.scheduler = WAN_SCHEDULER_EULER;
    config.flow_shift = bounded_shift(file, "shift");
    require(file, "stochastic_sampling", false, "false");
    require(file, "invert_sigmas", false, "false");
  } else {
    throw file.error("_class_name", "is '" + printable(name) +
                                        "', but only UniPCMultistepScheduler and "
                                        "FlowMatchEulerDiscreteScheduler are supported");
  }
  for (const char *key :
       {"use_dynamic_shifting", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"})
    require(file, key, false, "false");
  require_null(file, "shift_terminal", "a terminal shift");
  return config;
}

bool CheckpointConfig::transformer_is_gguf() const {
  const auto found = files.find("transformer");
  return found != files.end() && is_gguf(found->second.path());
}

const Variant &CheckpointConfig::find_variant() const {
  check_fit(*this);
  const Variant *const found = wan::find_variant(traits_of(*this));
  if (!found)
    throw invalid("'" + directory.string() +
                  "' is no model that is known: its transformer takes pictures in another way than Wan's do");
  return *found;
}

WanDefaults CheckpointConfig::parse_defaults(const JsonFile &file) const {
  WanDefaults defaults{};
  std::string_view(variant->name).copy(defaults.variant, sizeof defaults.variant - 1);
  defaults.pictures[WAN_PICTURE_FIRST] = variant->first_picture;
  defaults.pictures[WAN_PICTURE_LAST] = variant->last_picture;
  defaults.size_multiple = static_cast<int32_t>(vae.spatial_scale() * transformer.patch_width);
  defaults.frames_multiple = static_cast<int32_t>(vae.temporal_scale());
  file.allow_only({"width", "height", "num_frames", "framerate", "steps", "guidance_scale",
                   "guidance_scale_2", "causal", "components", "state_dict"});
  defaults.width = static_cast<int32_t>(file.integer("width", variant->width, 1, kMaxDim));
  defaults.height = static_cast<int32_t>(file.integer("height", variant->height, 1, kMaxDim));
  if (defaults.width % defaults.size_multiple || defaults.height % defaults.size_multiple)
    throw file.error("width and height", "must be multiples of " + std::to_string(defaults.size_multiple));
  defaults.num_frames = static_cast<int32_t>(file.integer("num_frames", variant->num_frames, 1, kMaxDim));
  parse_framerate(file, *variant, defaults);
  defaults.steps = static_cast<int32_t>(file.integer("steps", variant->steps, 1, 1000));
  const bool own_guidance = file.has("guidance_scale");
  defaults.guidance_scale = file.number("guidance_scale", variant->guidance_scale, 0, kMaxGuidance);
  // As in Diffusers, a guidance scale given alone serves both transformers.
  defaults.guidance_scale_2 = file.number(
      "guidance_scale_2",
      own_guidance || !boundary_ratio ? defaults.guidance_scale : variant->guidance_scale_2, 0, kMaxGuidance);
  defaults.flow_shift = scheduler.flow_shift;
  defaults.scheduler = scheduler.scheduler;
  if (causal) describe_causal(*causal, vae.temporal_scale(), defaults);
  return defaults;
}

void CheckpointConfig::parse_causal(const JsonFile &file) {
  if (!transformer.is_causal && !file.has("causal")) return;
  const auto &directory = files.at("transformer").directory;
  const auto apply_transformer_config = [&](CausalConfig &config) {
    if (transformer.is_causal) config.apply_transformer_config(JsonFile(directory / "config.json"));
  };
  causal = *CausalConfig::preset(transformer_2 ? "fastvideo-a14b" : "self-forcing");
  if (file.has("causal"))
    causal->apply(file, apply_transformer_config);
  else
    apply_transformer_config(*causal);
  if (transformer_2 && !causal->boundary_ratio) causal->boundary_ratio = boundary_ratio;
  causal->check(file.source(), transformer_2.has_value());
}

namespace {

JsonFile read_suggestions(const std::filesystem::path &directory) {
  const std::filesystem::path path = directory / "gst-wan.json";
  return is_there(path) ? JsonFile(path) : JsonFile(std::string_view("{}"), path.string());
}

}  // namespace

std::optional<CheckpointConfig> read_components_beside(const std::filesystem::path &directory,
                                                       const JsonFile &suggestions) {
  const auto other = directory_beside(directory, suggestions);
  if (!other) return std::nullopt;
  if (read_suggestions(*other).has("components"))  // which might lead back here
    throw suggestions.error("components", "names a model that itself takes components of another one");
  return CheckpointConfig::read(*other);
}

CheckpointConfig CheckpointConfig::read(const std::filesystem::path &directory) {
  std::error_code status;
  if (!is_there(directory)) throw not_found("There is no model directory '" + directory.string() + "'");
  if (std::filesystem::is_regular_file(directory, status))
    throw invalid("'" + directory.string() +
                  "' is a file: the model is the directory that holds it, with the "
                  "other components and the tokenizer");
  if (!std::filesystem::is_directory(directory, status))
    throw not_found("There is no model directory '" + directory.string() + "'");
  const JsonFile suggestions = read_suggestions(directory);
  CheckpointConfig config = is_there(directory / "model_index.json")
                                ? read_diffusers(directory, suggestions)
                                : read_single_files(directory, suggestions);
  config.variant = &config.find_variant();
  config.parse_causal(suggestions);
  config.defaults = config.parse_defaults(suggestions);
  return config;
}

}  // namespace wan
