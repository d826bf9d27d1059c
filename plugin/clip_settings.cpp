// SPDX-License-Identifier: LGPL-2.1-or-later
#include "clip_settings.h"

#include <array>
#include <charconv>
#include <cmath>
#include <utility>

namespace wan {
namespace {

// -1 stands for an open one.
bool is_scale(double value) {
  return value == -1 || (std::isfinite(value) && value >= 0);
}

bool is_shift(double value) {
  return value == -1 || (std::isfinite(value) && value > 0);
}

std::string fault_of_sigmas(const std::vector<double> &sigmas) {
  for (size_t i = 0; i < sigmas.size(); ++i) {
    if (!(sigmas[i] > 0 && sigmas[i] <= 1))
      return "sigmas must be above 0 and up to 1, and " + text_of(sigmas[i]) + " is not.";
    if (i > 0 && sigmas[i] >= sigmas[i - 1])
      return "sigmas must fall from step to step, and " + text_of(sigmas[i]) + " comes after " +
             text_of(sigmas[i - 1]) + ".";
  }
  return "";
}

}  // namespace

ClipSettings overlay(ClipSettings over, const ClipSettings &under) {
  if (over.guidance_scale_2 < 0)
    over.guidance_scale_2 = over.guidance_scale < 0 ? under.guidance_scale_2 : over.guidance_scale;
  if (over.guidance_scale < 0) over.guidance_scale = under.guidance_scale;
  if (over.prompt.empty()) over.prompt = under.prompt;
  if (over.negative_prompt.empty()) over.negative_prompt = under.negative_prompt;
  if (over.seed == kRandomSeed) over.seed = under.seed;
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

std::string fault_of(const ClipSettings &settings) {
  for (const auto &[name, value] : {std::pair{"guidance-scale", settings.guidance_scale},
                                    {"guidance-scale-2", settings.guidance_scale_2}})
    if (!is_scale(value))
      return std::string(name) + " must be a number from 0 on, or -1 for the checkpoint's own.";
  if (!is_shift(settings.flow_shift))
    return "flow-shift must be a number above 0, or -1 for the checkpoint's own.";
  if (settings.cache_threshold &&
      !(std::isfinite(*settings.cache_threshold) && *settings.cache_threshold >= 0))
    return "cache-threshold must be a number from 0 on.";
  return fault_of_sigmas(settings.sigmas);
}

std::string text_of(double value) {
  std::array<char, 32> text;
  return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
}

WanGenerateOptions generate_options(const ClipSettings &settings) {
  WanGenerateOptions options = {};
  options.prompt = settings.prompt.c_str();
  options.negative_prompt = settings.negative_prompt.c_str();
  options.num_frames = settings.num_frames;
  options.steps = settings.steps;
  options.guidance_scale = settings.guidance_scale;
  options.guidance_scale_2 = settings.guidance_scale_2;
  options.flow_shift = settings.flow_shift;
  options.scheduler = settings.scheduler;
  options.sigmas = settings.sigmas.empty() ? nullptr : settings.sigmas.data();
  options.num_sigmas = settings.sigmas.size();
  options.cache = *settings.cache;
  options.cache_threshold = *settings.cache_threshold;
  return options;
}

int round_frames(int wanted, const WanDefaults &defaults) {
  const int step = defaults.frames_multiple;
  return wanted % step == 1 % step ? wanted : wanted / step * step + 1;
}

}  // namespace wan
