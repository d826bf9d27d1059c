// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/tiny_decoder_config.h"

#include "checkpoint/config.h"
#include "checkpoint/input_file.h"
#include "checkpoint/weights.h"

namespace wan {

namespace {

constexpr int64_t kSmallLatents = 48;  // of the VAE of Wan 2.2's TI2V-5B
constexpr int64_t kMaxChannels = 4096;
/// The convolutions behind which the number of channels is another, by their layer.
constexpr int64_t kConvs[] = {1, 8, 14, 20};

/// Rows of a convolution's weight, which has 4 dimensions.
int64_t rows(const TensorFile &file, int64_t layer) {
  const std::string name = "decoder." + std::to_string(layer) + ".weight";
  const auto found = file.tensors().find(name);
  if (found == file.tensors().end())
    throw invalid(
        file.path() + " is no tiny decoder: it has no tensor '" + name +
        "'; get taew2_1.safetensors or taew2_2.safetensors of https://github.com/madebyollin/taehv");
  const std::vector<int64_t> &shape = found->second.shape;
  if (shape.size() != 4 || shape[0] < 1 || shape[0] > kMaxChannels)
    throw invalid(file.path() + ": tensor '" + name + "' has the shape " + to_string(shape) +
                  ", but must be a convolution of up to " + std::to_string(kMaxChannels) + " channels");
  return shape[0];
}

const char *published_stem(const VaeConfig &vae) {
  return vae.z_dim == kSmallLatents ? "taew2_2" : "taew2_1";
}

/// In the checkpoint's directory.
std::filesystem::path published_file(const CheckpointConfig &config) {
  const std::string stem = published_stem(config.vae);
  const std::filesystem::path path = config.directory / (stem + ".safetensors");
  if (!is_there(path))
    throw not_found(
        "decoder=tiny needs " + path.string() +
        ": get it from https://github.com/madebyollin/taehv, or set decoder to the path of such a "
        "file, or to full");
  return path;
}

}  // namespace

TinyDecoderConfig TinyDecoderConfig::of(const TensorFile &file, int64_t z_dim, int64_t patch_size) {
  TinyDecoderConfig config = {z_dim, {}, patch_size};
  for (const int64_t layer : kConvs) config.channels.push_back(rows(file, layer));
  return config;
}

void choose_decoder(CheckpointConfig &config, const std::string &choice) {
  if (choice == "full") return;
  const std::filesystem::path path = choice == "tiny" ? published_file(config) : local_path(choice);
  const ComponentFiles files = {
      .directory = path.parent_path(), .stem = path.stem().string(), .extension = path.extension().string()};
  config.tiny_decoder = TinyDecoderConfig::of(TensorFile(path), config.vae.z_dim, config.vae.patch_size);
  config.files["tiny_decoder"] = files;
}

}  // namespace wan
