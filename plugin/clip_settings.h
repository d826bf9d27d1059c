// What makes one clip: the settings of the element, of a queued clip, and the checkpoint's own, one over the
// other.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "picture.h"
#include "wan/engine.h"

namespace wan {

/** All other values are seeds: the upper half of the unsigned ones are negative here. */
constexpr int64_t kRandomSeed = -1;

/** A value that is left at its default here is open: what lies beneath decides. */
struct ClipSettings {
  std::string prompt, negative_prompt;
  std::string image, last_image;  // paths or URIs
  int64_t seed = kRandomSeed;     // the bits of an unsigned one
  int num_frames = 0, steps = 0;
  double guidance_scale = -1, guidance_scale_2 = -1, flow_shift = -1;
  WanScheduler scheduler = WAN_SCHEDULER_AUTO;
  std::vector<double> sigmas;  // in place of steps
  std::optional<WanCache> cache;
  std::optional<double> cache_threshold;
  WanPromptSwitch prompt_switch = WAN_SWITCH_AUTO;  // from the clip before to this one
  double continuity_correction = 0;
};

/** The pictures of a clip, by WanPictureKind; null where there is none. */
using ClipPictures = std::array<std::shared_ptr<const Picture>, WAN_PICTURE_KINDS>;

/** A clip that was asked for by itself. */
struct QueuedClip {
  uint32_t id = 0;  // for whoever enqueued it; 0: of the property prompts
  ClipSettings settings;
  ClipPictures pictures;  // in place of the settings' own
  std::chrono::steady_clock::time_point asked = std::chrono::steady_clock::now();
};

/** A row of the table of settings, which is all that there is to say of one. From it come the property, the
 * field of the same name in enqueue's structure, in messages and in statistics, the part of a launch line,
 * and what the engine is given. */
struct ClipSetting {
  GParamSpec *pspec;
  std::function<void(ClipSettings *, const GValue *)> set;
  std::function<void(const ClipSettings &, GValue *)> get;  // an open one as the property's default
  std::function<bool(const ClipSettings &)> is_open;
  /** Takes it over from `under` where it is open. */
  std::function<void(ClipSettings *, const ClipSettings &under)> overlay;
  /** Sets it to what the checkpoint suggests. */
  std::function<void(ClipSettings *, const WanDefaults &)> suggest;
  std::function<void(const ClipSettings &, WanGenerateOptions *)> hand_over;
  /** What makes it no setting of a clip whatever the checkpoint, as a sentence; empty if it can be one. */
  std::function<std::string(const ClipSettings &)> fault;

  const char *name() const { return pspec->name; }
};

/** Where the settings say that a picture of the kind is; empty: nowhere. */
inline const std::string &picture_location(const ClipSettings &settings, WanPictureKind kind) {
  return kind == WAN_PICTURE_FIRST ? settings.image : settings.last_image;
}

/** In the order in which they are shown. */
const std::vector<ClipSetting> &clip_settings();

/** `over`, and where that is open, `under`. A guidance scale alone counts for both experts, as in Diffusers;
 * steps stand over sigmas beneath them. */
ClipSettings overlay(ClipSettings over, const ClipSettings &under);

/** Nothing is open but prompts and the seed. The number of frames is rounded to one that the checkpoint can
 * make. */
ClipSettings complete(const ClipSettings &settings, const WanDefaults &defaults);

/** What makes them no settings of a clip whatever the checkpoint, as a sentence; empty if they can be. */
std::string clip_fault(const ClipSettings &settings);

/** "NAME is not UTF-8.", or empty. */
std::string text_fault(const char *name, const std::string &text);

/** Of complete settings, into which it points. The size and what a stream decides are left out. */
WanGenerateOptions generate_options(const ClipSettings &settings);

/** Each setting as a field of a structure: of its property's type, but names in place of enumerated values.
 */
void add_fields(const ClipSettings &settings, GstStructure *structure);

/** Those that are not open and have an effect, as " name=value" one after the other, the texts last. */
std::string launch_line(const ClipSettings &settings);

/** Rounds as Diffusers does, which is up from a multiple: 6 becomes 5, but 8 becomes 9. Of an endless model, 0
 * stays 0. */
int round_frames(int wanted, const WanDefaults &defaults);

}  // namespace wan
