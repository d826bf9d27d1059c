// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What can be said of a clip's options before any weights are loaded.
#pragma once

#include "checkpoint/config.h"
#include "wan/engine.h"

namespace wan {

/// Of the frames that are denoised, those that are decoded.
int32_t decoded_frames(const WanGenerateOptions &options);

/// Throws wan::Error (WAN_INVALID), naming the option, where the checkpoint cannot make such a clip. A layout
/// of width 0 and height 0 stands for a size that is not known yet, and so does NULL for a prompt.
void check_options(const CheckpointConfig &config, const WanGenerateOptions &options);

/// The same of a size alone, in pixels.
void check_size(const CheckpointConfig &config, int32_t width, int32_t height);

}  // namespace wan
