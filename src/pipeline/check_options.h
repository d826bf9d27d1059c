// What can be said of a clip's options before any weights are loaded.
#pragma once

#include "checkpoint/config.h"
#include "wan/engine.h"

namespace wan {

/// Of the frames that are denoised, those that are decoded.
int32_t decoded_frames(const WanGenerateOptions &options);

/// Throws wan::Error (WAN_INVALID), naming the option, where the checkpoint cannot make such a clip. A layout
/// of width 0 and height 0 stands for a size that is not known yet.
void check_options(const CheckpointConfig &config, const WanGenerateOptions &options);

}  // namespace wan
