// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The JSON files of a Diffusers checkpoint of Wan 2.2, with Diffusers' names and defaults.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/causal.h"
#include "checkpoint/json_file.h"
#include "checkpoint/names.h"
#include "checkpoint/tiny_decoder_config.h"
#include "checkpoint/variant.h"
#include "wan/engine.h"

namespace wan {

/// The most that files and options may ask for, as the element's properties have it.
constexpr double kMaxGuidance = 100, kMaxShift = 100;

/// transformer/config.json of a WanTransformer3DModel.
struct TransformerConfig {
  int64_t num_attention_heads, attention_head_dim;
  int64_t in_channels, out_channels;
  int64_t text_dim, freq_dim, ffn_dim, num_layers;
  int64_t patch_height, patch_width;  // the temporal patch is 1
  int64_t rope_max_seq_len;
  double eps;
  std::optional<int64_t> image_dim;          // of CLIP's tokens, where pictures are seen through it
  std::optional<int64_t> pos_embed_seq_len;  // tokens of CLIP in all, where it sees two pictures
  bool is_causal = false;                    // it is a CausalWanTransformer3DModel

  int64_t inner_dim() const { return num_attention_heads * attention_head_dim; }
  static TransformerConfig parse(const JsonFile &file);
};

/// vae/config.json of an AutoencoderKLWan: with 16 latent channels (the VAE of Wan 2.1 and of Wan 2.2 A14B),
/// or with 48 (of TI2V-5B), which is residual and works on patches.
struct VaeConfig {
  int64_t base_dim, z_dim, num_res_blocks;
  std::optional<int64_t> decoder_base_dim;  // none: base_dim
  bool is_residual = false;                 // shortcuts lead around whole stages
  int64_t patch_size = 1;                   // pixels that become channels, in height and in width; 1: none
  std::vector<int64_t> dim_mult;
  std::vector<bool> temporal_upsample;  // decoder order: the config's temperal_downsample, reversed
  std::vector<double> latents_mean, latents_std;

  /// Channels after the decoder's stage: index 0 is the first, at latent size.
  std::vector<int64_t> decoder_dims() const;
  /// Channels after the encoder's stage: index 0 is the first, at the size of the patches.
  std::vector<int64_t> encoder_dims() const;
  /// Of the picture that the convolutions work on: 3, or those of a patch.
  int64_t picture_channels() const { return 3 * patch_size * patch_size; }
  /// Patches, in height and in width, that become a latent.
  int64_t patches_scale() const { return int64_t{1} << (dim_mult.size() - 1); }
  int64_t spatial_scale() const { return patches_scale() * patch_size; }
  int64_t temporal_scale() const;
  static VaeConfig parse(const JsonFile &file);
};

/// text_encoder/config.json of a UMT5EncoderModel.
struct TextEncoderConfig {
  int64_t vocab_size, d_model, d_kv, d_ff, num_layers, num_heads;
  int64_t relative_attention_num_buckets, relative_attention_max_distance;
  double layer_norm_epsilon;

  static TextEncoderConfig parse(const JsonFile &file);
};

/// image_encoder/config.json of a CLIPVisionModel, with or without projection.
struct CLIPVisionConfig {
  int64_t hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
  int64_t image_size, patch_size;  // of the square picture, and of its patches
  double layer_norm_eps;

  int64_t num_patches() const { return (image_size / patch_size) * (image_size / patch_size); }
  static CLIPVisionConfig parse(const JsonFile &file);
};

/// scheduler/scheduler_config.json: UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler.
struct SchedulerConfig {
  WanScheduler scheduler;
  double flow_shift;
  int64_t num_train_timesteps;

  static SchedulerConfig parse(const JsonFile &file);
};

struct CheckpointConfig;

/// The model beside `directory` that "components" of its gst-wan.json names, for what is not in it; nothing
/// where there is no such key. Throws wan::Error.
std::optional<CheckpointConfig> read_components_beside(const std::filesystem::path &directory,
                                                       const JsonFile &suggestions);

/// A checkpoint directory: where its parts are, and what they are like.
struct CheckpointConfig {
  std::filesystem::path directory;
  std::filesystem::path tokenizer;              // the directory of tokenizer.json
  std::map<std::string, ComponentFiles> files;  // of the components: transformer, transformer_2,
                                                // text_encoder, image_encoder, vae and tiny_decoder
  std::optional<double> boundary_ratio;         // none: transformer alone denoises
  TransformerConfig transformer;
  std::optional<TransformerConfig> transformer_2;  // there exactly if boundary_ratio is
  VaeConfig vae;
  std::optional<TinyDecoderConfig> tiny_decoder;  // there where choose_decoder() chose one
  TextEncoderConfig text_encoder;
  std::optional<CLIPVisionConfig> image_encoder;  // there exactly if transformer has an image_dim
  SchedulerConfig scheduler;
  bool expand_timesteps = false;  // a picture comes as the first latent frame, at a timestep of its own
  const Variant *variant = nullptr;
  std::optional<CausalConfig> causal;  // there where it makes endless videos
  WanDefaults defaults;

  /// Whether pictures are encoded: some that it may be given, or its own frames.
  bool encodes_pictures() const {
    return defaults.pictures[WAN_PICTURE_FIRST] != WAN_PICTURE_REFUSED ||
           (causal && !causal->keep_first_frame);
  }

  /// Whether the transformer's weights are in a .gguf; not where there are no files, but random weights.
  bool transformer_is_gguf() const;

  /// Of a directory in Diffusers' format, which has a model_index.json, or in one of read_single_files.
  /// Throws wan::Error: WAN_NOT_FOUND for a missing directory or file, WAN_INVALID for one that is not what
  /// it should be or that asks for something not supported.
  static CheckpointConfig read(const std::filesystem::path &directory);
  /// "causal" of gst-wan.json and of the transformer's config.json.
  void parse_causal(const JsonFile &file);
  /// gst-wan.json beside model_index.json: what the checkpoint suggests where its authors' values for A14B
  /// are not right for it. All else of the configuration is known. Throws wan::Error (WAN_INVALID).
  WanDefaults parse_defaults(const JsonFile &file) const;
  /// Throws wan::Error (WAN_INVALID) where the components do not fit each other, or where they are no known
  /// model.
  const Variant &find_variant() const;
};

}  // namespace wan
