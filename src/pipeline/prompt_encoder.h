// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Prompts as the denoiser takes them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <deque>
#include <string>

#include "pipeline/components.h"
#include "run_context.h"
#include "wan/engine.h"

namespace wan {

/// [1, 512, d_model] each, zero beyond the prompt, on the encoders' device.
struct PromptEmbeddings {
  at::Tensor prompt;
  at::Tensor negative;  // undefined where there is no guidance
};

/// Whether the negative prompt counts. As Diffusers decides it: by the first scale, for both experts.
bool is_guided(const WanGenerateOptions &options);

class PromptEncoder {
 public:
  explicit PromptEncoder(Components &components) : components_(components) {}

  /// keeps_encoder: the text encoder stays where it is, for the next prompt. Throws wan::Error.
  PromptEmbeddings operator()(const WanGenerateOptions &options, bool keeps_encoder,
                              const RunContext &context);
  /// One prompt alone.
  at::Tensor operator()(const std::string &prompt, bool keeps_encoder, const RunContext &context);

 private:
  struct Embedding {
    std::string prompt;
    at::Tensor values;
  };

  at::Tensor embed(const std::string &prompt, const RunContext &context);
  at::Tensor encode(const std::string &prompt, const RunContext &context);

  Components &components_;
  std::deque<Embedding> recent_;  // the one used last at the end
};

}  // namespace wan
