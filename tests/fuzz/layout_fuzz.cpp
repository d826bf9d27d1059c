// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A single file of another layout than Diffusers': what it is and its architecture, by its header.
#include "checkpoint/layout.h"
#include "checkpoint/safetensors.h"

#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  TensorShapes stored;
  for (const auto &[name, entry] : parse_safetensors_header(input, input.size(), "input").tensors)
    stored[name] = entry.shape;
  const auto found = FoundComponent::recognise({"", "input"}, stored);
  if (!found) return;
  if (found->kind == FoundComponent::Kind::kTransformer)
    found->transformer_config();
  else if (found->kind == FoundComponent::Kind::kVae)
    found->vae_config();
  else if (found->kind == FoundComponent::Kind::kImageEncoder)
    found->image_encoder_config();
  else
    found->text_encoder_config();
}
