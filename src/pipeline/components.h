// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The parts of a model on their devices.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "image/clip_vision.h"
#include "pipeline/component_source.h"
#include "pipeline/memory_mode.h"
#include "pipeline/replicas.h"
#include "run_context.h"
#include "text/tokenizer.h"
#include "text/umt5_encoder.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiny_decoder.h"

namespace wan {

/// Where the parts are and in which numbers they compute.
struct Placement {
  std::vector<at::Device> devices;  // a rank on each
  at::ScalarType dtype;             // but on the CPU the VAE's is float32
  WanQuantization quantization = WAN_QUANTIZATION_NONE;
  std::optional<at::Device> vae_device = {};  // none: the first of devices

  /// Of the VAE and of the encoders of text and of pictures.
  at::Device of_vae() const { return vae_device.value_or(devices.front()); }
  /// Whether nothing is denoised there.
  bool has_vae_apart() const { return std::ranges::find(devices, of_vae()) == devices.end(); }
  /// Each device once.
  std::vector<at::Device> all() const;
};

/// Whether all values are finite, and none so large that the models' arithmetic would overflow.
bool is_usable(const at::Tensor &values);

class Components {
 public:
  /// Loads all but, on a GPU, what works for a moment and would take its memory: the encoders of text and of
  /// pictures. Throws wan::Error.
  Components(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source, Tokenizer tokenizer,
             const Placement &placement, WanMemoryMode memory);

  const CheckpointConfig &config() const { return config_; }
  const Placement &placement() const { return placement_; }
  /// Of the first rank.
  at::Device device() const { return placement_.devices.front(); }
  /// Of the encoders, too.
  at::Device vae_device() const { return placement_.of_vae(); }
  /// RESIDENT, ONE_EXPERT, STREAM or SPLIT.
  WanMemoryMode memory_mode() const { return memory_mode_; }
  /// The modes in which the model would take less of the GPU and fit the host, to begin an advice with:
  /// "memory=stream, ", or nothing.
  std::string smaller_memory_modes() const;

  const Tokenizer &tokenizer() const { return tokenizer_; }
  /// The one that denoises, or that for high noise and that for low noise.
  const std::vector<Replicas> &experts() const { return experts_; }
  /// The first expert of the first rank.
  const WanTransformer3DModel &transformer() const { return experts_.front().front(); }
  const AutoencoderKLWan &vae() const { return *vae_; }
  /// The VAE, or what was chosen to decode in its place.
  const LatentDecoder &decoder() const;
  /// Loads it where it is not there.
  const UMT5EncoderModel &text_encoder(const RunContext &context);
  /// The same of CLIP's half for pictures, in models that see them through it.
  const CLIPVisionModel &image_encoder(const RunContext &context);
  /// What the two take beside all else where they are not there; 0 where they are.
  uint64_t encoder_bytes() const;
  /// Lets go of them where they would take a GPU's memory.
  void release_encoders();

 private:
  /// Hands the component's weights to `make`, which is to load all of them.
  void open(const std::string &component, at::Device device, const std::vector<WeightRequest> &requests,
            const RunContext &context, const std::function<void(WeightSource &)> &make) const;
  template <typename Model, typename Config, typename... Arguments>
  std::unique_ptr<const Model> load(const std::string &component, const Config &config, at::ScalarType dtype,
                                    const RunContext &context, Arguments &&...arguments) const;
  using Slots = std::vector<std::shared_ptr<BlockSlots>>;
  /// Of each rank; none where all blocks stay on the device.
  Slots make_block_slots() const;
  void start_ranks();
  Replicas load_expert(const std::string &component, const TransformerConfig &config, RankThreads &ranks,
                       const Slots &slots);

  const CheckpointConfig config_;
  const std::unique_ptr<ComponentSource> source_;
  const Tokenizer tokenizer_;
  const Placement placement_;
  const WanMemoryMode memory_mode_;
  std::unique_ptr<const UMT5EncoderModel> text_encoder_;  // none while it is off the GPU
  std::unique_ptr<const CLIPVisionModel> image_encoder_;  // likewise
  std::deque<RankThreads> ranks_;                         // with SPLIT of each expert, else of both
  std::vector<Replicas> experts_;
  std::unique_ptr<const AutoencoderKLWan> vae_;
  std::unique_ptr<const TinyDecoder> tiny_decoder_;  // none: the VAE decodes
};

}  // namespace wan
