// SPDX-License-Identifier: LGPL-2.1-or-later
#include "clip_settings.h"

namespace wan {

ClipSettings overlay(ClipSettings over, const ClipSettings &under) {
  if (over.guidance_scale_2 < 0)
    over.guidance_scale_2 = over.guidance_scale < 0 ? under.guidance_scale_2 : over.guidance_scale;
  if (over.guidance_scale < 0) over.guidance_scale = under.guidance_scale;
  if (over.prompt.empty()) over.prompt = under.prompt;
  if (over.negative_prompt.empty()) over.negative_prompt = under.negative_prompt;
  if (over.seed < 0) over.seed = under.seed;
  if (over.num_frames == 0) over.num_frames = under.num_frames;
  if (over.steps == 0 && over.sigmas.empty()) over.sigmas = under.sigmas;
  if (over.steps == 0) over.steps = under.steps;
  if (over.flow_shift < 0) over.flow_shift = under.flow_shift;
  if (over.scheduler == WAN_SCHEDULER_AUTO) over.scheduler = under.scheduler;
  if (!over.cache) over.cache = under.cache;
  if (!over.cache_threshold) over.cache_threshold = under.cache_threshold;
  return over;
}

ClipSettings complete(const ClipSettings &settings, const WanDefaults &defaults) {
  const ClipSettings own = {"",
                            "",
                            -1,
                            defaults.num_frames,
                            defaults.steps,
                            defaults.guidance_scale,
                            defaults.guidance_scale_2,
                            defaults.flow_shift,
                            defaults.scheduler,
                            {},
                            WAN_CACHE_NONE,
                            kCacheThreshold};
  ClipSettings clip = overlay(settings, own);
  clip.num_frames = round_frames(clip.num_frames, defaults);
  return clip;
}

int round_frames(int wanted, const WanDefaults &defaults) {
  const int step = defaults.frames_multiple;
  return wanted % step == 1 % step ? wanted : wanted / step * step + 1;
}

}  // namespace wan
