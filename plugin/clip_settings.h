// What makes one clip: the settings of the element, of a queued clip, and the checkpoint's own, one over the
// other.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "wan/engine.h"

namespace wan {

/** All other values are seeds: the upper half of the unsigned ones are negative here. */
constexpr int64_t kRandomSeed = -1;

/** A value that is left at its default here is open: what lies beneath decides. */
struct ClipSettings {
  std::string prompt, negative_prompt;
  int64_t seed = kRandomSeed;  // the bits of an unsigned one
  int num_frames = 0, steps = 0;
  double guidance_scale = -1, guidance_scale_2 = -1, flow_shift = -1;
  WanScheduler scheduler = WAN_SCHEDULER_AUTO;
  std::vector<double> sigmas;  // in place of steps
  std::optional<WanCache> cache;
  std::optional<double> cache_threshold;
};

/** Diffusers' default; what it costs is in docs/parity.md. */
constexpr double kCacheThreshold = 0.05;

/** `over`, and where that is open, `under`. A guidance scale alone counts for both experts, as in Diffusers;
 * steps stand over sigmas beneath them. */
ClipSettings overlay(ClipSettings over, const ClipSettings &under);

/** Nothing is open but prompts and the seed. The number of frames is rounded to one that the checkpoint can
 * make. */
ClipSettings complete(const ClipSettings &settings, const WanDefaults &defaults);

/** What makes them no settings of a clip whatever the checkpoint, as a sentence; empty if they can be. */
std::string fault_of(const ClipSettings &settings);

/** As many digits as make the number again, the same in every locale. */
std::string text_of(double value);

/** Of complete settings, into which it points. The size and what a stream decides are left out. */
WanGenerateOptions generate_options(const ClipSettings &settings);

/** Rounds as Diffusers does, which is up from a multiple: 6 becomes 5, but 8 becomes 9. */
int round_frames(int wanted, const WanDefaults &defaults);

}  // namespace wan
