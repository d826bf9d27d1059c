// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The released Wan models, and all in which they differ but for their weights: a table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "wan/engine.h"

namespace wan {

/// How a picture comes to the denoiser.
enum class PictureInput {
  kNone,
  kChannels,   // as latents of a video of grey but for the picture, and a mask, behind the noise's channels
  kCleanFrame  // as the first latent frame, at timestep 0
};

/// What tells a model from another.
struct ModelTraits {
  PictureInput picture_input;
  bool sees_clip;     // pictures come as CLIP's tokens, too
  bool two_pictures;  // of which CLIP sees two
  bool two_experts;

  bool operator==(const ModelTraits &) const = default;
};

struct Variant {
  const char *name;  // as its authors call it; at most 31 characters
  ModelTraits traits;
  WanPictureUse first_picture, last_picture;
  std::optional<double> boundary_ratio;  // where there are two experts
  // What the configuration of a released checkpoint says, or its authors, where Diffusers leaves it open.
  double flow_shift;
  int32_t width, height, num_frames, framerate, steps;
  double guidance_scale, guidance_scale_2;

  /// The same of a picture.
  WanPictureUse picture(WanPictureKind kind) const {
    return kind == WAN_PICTURE_FIRST ? first_picture : last_picture;
  }
};

/// The model of such traits; where none has them all, one that differs in the number of experts. Null where
/// there is none.
const Variant *find_variant(const ModelTraits &traits);

}  // namespace wan
