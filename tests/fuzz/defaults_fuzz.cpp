// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A gst-wan.json. What it accepts must be a size, a length and a rate.
#include "checkpoint/config.h"

#include <cstdlib>

#include "fuzz.h"

void wan::fuzz::run(std::string_view input) {
  static const CheckpointConfig config = CheckpointConfig::read(WAN_SOURCE_DIR "/models/wan-tiny");
  const WanDefaults defaults = config.parse_defaults(JsonFile(input, "input"));
  if (defaults.width < 1 || defaults.num_frames < 1 || defaults.fps_n < 1 || defaults.fps_d < 1) std::abort();
}
