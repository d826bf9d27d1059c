// SPDX-License-Identifier: LGPL-2.1-or-later
//
// How the tensors of a component are called in its files: as Diffusers calls them, which are the names that
// the engine uses, or as the original Wan release does, ComfyUI and the makers of LoRAs too.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace wan {

/// Whose names: Diffusers', or the original ones of a component; of a text encoder also llama.cpp's, which
/// GGUF files have; of a CLIPVisionModel Transformers', or those that Transformers 5 writes, without
/// "vision_model." in front.
enum class Naming {
  kDiffusers,
  kOriginalTransformer,
  kOriginalVae,
  kOriginalResidualVae,
  kOriginalTextEncoder,
  kLlamaTextEncoder,
  kBareClipVision
};

/// The name that stands in a file for a tensor or module of Diffusers: of kOriginalTransformer,
/// "blocks.3.self_attn.q.weight" for "blocks.3.attn1.to_q.weight". A name that no rule knows stays as it is.
std::string stored_name(Naming naming, std::string_view diffusers);
/// The reverse.
std::string diffusers_name(Naming naming, std::string_view stored);

/// Whether a module or tensor, in either naming, is one that only models that see an image have.
bool is_of_image(std::string_view name);

/// A text encoder's embedding, and its other name: Transformers stores the one tensor under either or both.
inline constexpr const char *kEmbedding = "shared.weight", *kTiedEmbedding = "encoder.embed_tokens.weight";

/// "a, b, c and 5 more", for error messages.
std::string list_names(const std::vector<std::string> &names, size_t shown = 3);

/// The files of a component: DIRECTORY/STEM.safetensors, or the shards of
/// DIRECTORY/STEM.safetensors.index.json, or one file of another format.
struct ComponentFiles {
  std::filesystem::path directory;
  std::string stem;
  Naming naming = Naming::kDiffusers;
  std::string prefix = {};                 // of all names
  std::string extension = ".safetensors";  // or that of another format
  std::string part = {};                   // of a torch.save() file, see parse_torch_file()

  std::string stored_name(std::string_view diffusers) const {
    return prefix + wan::stored_name(naming, diffusers);
  }
  /// For error messages.
  std::string path() const { return (directory / (stem + extension)).string(); }
};

}  // namespace wan
