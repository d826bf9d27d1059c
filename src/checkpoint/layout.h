// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Checkpoints that are not in Diffusers' format: the original Wan release, and the single files that ComfyUI
// and LightX2V use. They say little of themselves; what a file is and how large the model, its header tells.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/config.h"
#include "checkpoint/names.h"
#include "checkpoint/tensor_file.h"

namespace wan {

/// A component that was found in a directory.
struct FoundComponent {
  enum class Kind { kTransformer, kVae, kTextEncoder, kImageEncoder };

  Kind kind;
  ComponentFiles files;
  TensorShapes shapes;  // by Diffusers' names

  /// What a set of tensors is, by the names that only such a component has; nothing if it is none of these.
  static std::optional<FoundComponent> recognise(const ComponentFiles &files, const TensorShapes &stored);

  /// What a transformer is for by its names and channels, where that is nothing that is supported: "VACE".
  std::optional<std::string> other_task() const;
  /// The tasks of the released models: "text to video", for an error.
  std::string task() const;

  /// The architecture by the shapes; what they do not tell is as in the released A14B. Throws wan::Error
  /// (WAN_INVALID), naming the file, where a shape is missing or not supported.
  TransformerConfig transformer_config() const;
  VaeConfig vae_config() const;
  TextEncoderConfig text_encoder_config() const;
  CLIPVisionConfig image_encoder_config() const;

 private:
  int64_t in_channels() const;
  int64_t length(const std::string &tensor, size_t dimension, size_t dimensions) const;
  int64_t count_blocks(const std::string &before, const std::string &after) const;
  JsonFile json(const Json &values) const;
};

/// Reads a directory without a model_index.json:
///
/// - the experts: high_noise_model/ and low_noise_model/, as in the original release, or single files beside
///   the rest or in diffusion_models/, unet/, HighNoise/ or LowNoise/, told apart by "high_noise" and
///   "low_noise", or "high" and "low", in their names; one alone, without either, is a model with one
///   transformer; transformers for other tasks do not count, nor those for image to video where there are
///   some for text to video;
/// - text encoder, VAE and CLIP's image encoder: files in the directory itself, text_encoders/,
///   text_encoder/, clip/, vae/, VAE/, clip_vision/ or image_encoder/; VAEs of another number of latent
///   channels than the transformer's do not count;
/// - tokenizer.json in tokenizer/ or google/umt5-xxl/.
///
/// Files that are something else or cannot be read do not matter while nothing is missing. Throws wan::Error:
/// WAN_NOT_FOUND saying what is missing and what was found; WAN_INVALID where two files are for the same, or
/// where a component is there in a format that is not read (pickle) or broken. Leaves defaults open.
///
/// A component may also be a .gguf, or a .pt or .pth of torch.save(). suggestions:
/// gst-wan.json; its "state_dict" is the part of such files that is taken, and its "components" a model
/// beside this one that has what is missing here.
CheckpointConfig read_single_files(const std::filesystem::path &directory, const JsonFile &suggestions);

/// The files of the image encoder of a directory in Diffusers' format, in whose names one version of
/// Transformers leaves a part out. Throws wan::Error.
ComponentFiles image_encoder_files(const std::filesystem::path &directory);

}  // namespace wan
