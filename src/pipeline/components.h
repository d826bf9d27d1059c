// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The parts of a model on their devices.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "checkpoint/config.h"
#include "checkpoint/weights.h"
#include "image/clip_vision.h"
#include "pipeline/component_source.h"
#include "pipeline/experts.h"
#include "run_context.h"
#include "text/tokenizer.h"
#include "text/umt5_encoder.h"
#include "vae/autoencoder_kl_wan.h"
#include "vae/tiny_decoder.h"

namespace wan {

/// Whether all values are finite, and none so large that the models' arithmetic would overflow.
bool is_usable(const at::Tensor &values);

class Components {
 public:
  /// Loads all but, on a GPU, what works for a moment and would take its memory: the encoders of text and of
  /// pictures. Throws wan::Error.
  Components(const CheckpointConfig &config, std::unique_ptr<ComponentSource> source, Tokenizer tokenizer,
             const Placement &placement, WanMemoryMode memory);

  const CheckpointConfig &config() const { return config_; }
  const Placement &placement() const { return experts_.placement(); }
  /// Of the first rank.
  at::Device device() const { return placement().devices.front(); }
  /// Of the encoders, too.
  at::Device vae_device() const { return placement().of_vae(); }

  const Tokenizer &tokenizer() const { return tokenizer_; }
  const Experts &experts() const { return experts_; }
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
  void open(const std::string &component, const std::vector<WeightRequest> &requests,
            const RunContext &context, const std::function<void(WeightSource &)> &make) const;
  template <typename Model, typename Config, typename... Arguments>
  std::unique_ptr<const Model> load(const std::string &component, const Config &config, at::ScalarType dtype,
                                    const RunContext &context, Arguments &&...arguments) const;

  const CheckpointConfig config_;
  const std::unique_ptr<ComponentSource> source_;
  const Tokenizer tokenizer_;
  const Experts experts_;
  std::unique_ptr<const UMT5EncoderModel> text_encoder_;  // none while it is off the GPU
  std::unique_ptr<const CLIPVisionModel> image_encoder_;  // likewise
  std::unique_ptr<const AutoencoderKLWan> vae_;
  std::unique_ptr<const TinyDecoder> tiny_decoder_;  // none: the VAE decodes
};

}  // namespace wan
