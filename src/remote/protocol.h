// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What an element says to a worker, and the worker to it, once they know each other:
//
//     load: experts, dtype, quantization   -> loaded: devices
//     clip: see clip_message()             -> ready
//     step: step; latents                  -> velocity: cached; velocity
//
// An answer may be an error instead. An element that wants no answer any more closes the connection.
#pragma once

#include <vector>

#include "checkpoint/config.h"
#include "pipeline/clip_plan.h"
#include "pipeline/model_inputs.h"
#include "remote/channel.h"
#include "wan/engine.h"

namespace wan {

constexpr guint16 kWorkerPort = 5890;

/// Lets the system notice where the other host has gone without a word, and send short messages at once.
void tune(GSocket *socket);

/// A clip of the negative prompt alone.
struct RemoteClip {
  WanGenerateOptions options;
  ClipPlan plan;
  ModelInputs inputs;  // the prompt is the negative one
  std::vector<double> timesteps;
};

Message clip_message(const WanGenerateOptions &options, const ModelInputs &inputs,
                     const std::vector<double> &timesteps);
/// Throws wan::Error (WAN_INVALID) where the model can make no such clip.
RemoteClip parse_clip(const Message &message, const CheckpointConfig &config, const std::string &peer);

}  // namespace wan
