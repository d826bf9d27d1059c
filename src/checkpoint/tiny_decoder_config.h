// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The file of a tiny decoder (vae/tiny_decoder.h), and its architecture by the shapes in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/names.h"
#include "checkpoint/tensor_file.h"

namespace wan {

struct CheckpointConfig;

struct TinyDecoderConfig {
  int64_t z_dim;
  std::vector<int64_t> channels;  // of the three stages, and of what the last one hands on
  int64_t patch_size;             // pixels that become channels, in height and in width; 1: none

  int64_t picture_channels() const { return 3 * patch_size * patch_size; }
  /// Frames that a frame becomes in a stage.
  static int64_t frames_grown(size_t stage) { return stage == 0 ? 1 : 2; }
  /// The layer that gives pictures, by its number in the file.
  int64_t last_layer() const { return 4 + 6 * (static_cast<int64_t>(channels.size()) - 1); }

  /// z_dim, patch_size: as the VAE has them. Throws wan::Error (WAN_INVALID) naming the file, where that is
  /// no such decoder.
  static TinyDecoderConfig of(const TensorFile &file, int64_t z_dim, int64_t patch_size);
};

/// What decodes instead of the VAE of `config`. choice: "full": nothing does; "tiny": taew2_1.safetensors or
/// taew2_2.safetensors in the checkpoint's directory; else the path of a file. Throws wan::Error:
/// WAN_NOT_FOUND, WAN_INVALID.
void choose_decoder(CheckpointConfig &config, const std::string &choice);

}  // namespace wan
