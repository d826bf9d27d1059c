// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What is settled of a clip before its text is encoded.
#pragma once

#include <cstdint>

#include "pipeline/components.h"
#include "wan/engine.h"

namespace wan {

struct ClipPlan {
  int64_t frames, height, width;  // of the latents
  /// Whether it is decoded in tiles, since the whole picture does not fit the free memory: asked once, since
  /// free memory may change while the clip is made.
  bool tiled = false;
  bool encodes_in_tiles = false;  // likewise, of the video that pictures are put into
  /// Whether the encoders of text and of pictures stay for the next clip: where they are not on a denoiser's
  /// GPU, and frames are decoded beside them.
  bool keeps_encoders = false;
};

/// The plan's size alone.
ClipPlan latents_size(const CheckpointConfig &config, const WanGenerateOptions &options);
/// Lets go of encoders that stayed and would be in the way. Throws wan::Error where the clip cannot be made:
/// WAN_INVALID for an option, WAN_OUT_OF_MEMORY with figures and advice.
ClipPlan plan_clip(Components &components, const WanGenerateOptions &options);

}  // namespace wan
