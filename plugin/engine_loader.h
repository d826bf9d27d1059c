// Finds and opens the engine library, so that the plugin itself links GStreamer only and costs a registry
// scan nothing.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "wan/engine.h"

namespace wan {

/** The engine library to open: the one `chosen`, else $GST_WAN_ENGINE, else the installed one. */
std::string engine_file(const std::string &chosen);

/** The checkpoint to load: the one `chosen`, else $GST_WAN_MODEL, else an embedded model of those in
 * $GST_WAN_MODELS or else the installed ones: for a live source the one that makes an endless video. */
std::string model_directory(const std::string &chosen, bool live);

/** The interface of the engine library, or nullptr and the reason as a sentence. The library is never closed:
 * neither CUDA nor LibTorch survives that. */
const WanEngineApi *open_engine(const std::string &file, std::string *reason);

}  // namespace wan
