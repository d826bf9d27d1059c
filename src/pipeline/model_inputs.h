// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the denoiser is given of a clip beside the noise: made once, the same in all steps.
#pragma once

#include "pipeline/prompt_encoder.h"

namespace wan {

struct ModelInputs {
  PromptEmbeddings text;
};

}  // namespace wan
