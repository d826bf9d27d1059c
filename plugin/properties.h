// The properties of the element, and the same settings as fields of a structure or the query of a URI.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <list>
#include <memory>
#include <string>
#include <vector>

#include "clip_settings.h"
#include "enums.h"
#include "frame_pump.h"

namespace wan {

enum Property {
  PROP_MODEL = 1,
  PROP_PROMPT,
  PROP_NEGATIVE_PROMPT,
  PROP_SEED,
  PROP_NUM_FRAMES,
  PROP_STEPS,
  PROP_GUIDANCE_SCALE,
  PROP_GUIDANCE_SCALE_2,
  PROP_FLOW_SHIFT,
  PROP_SCHEDULER,
  PROP_SIGMAS,
  PROP_CACHE,
  PROP_CACHE_THRESHOLD,
  PROP_DEVICE,
  PROP_DTYPE,
  PROP_QUANTIZATION,
  PROP_MEMORY,
  PROP_LORAS,
  PROP_NUM_CLIPS,
  PROP_PROMPTS,
  PROP_TRANSITION,
  PROP_TRANSITION_FRAMES,
  PROP_QUEUE_SIZE,
  PROP_IS_LIVE,
  PROP_UNDERRUN,
  PROP_FILLER,
  PROP_PREBUFFER,
  PROP_ENGINE,
  PROP_STATS,
};

/** What the properties hold, but is-live, which GstBaseSrc keeps. */
struct Settings {
  std::string model, device = "auto", engine;
  WanDtype dtype = WAN_DTYPE_AUTO;
  WanQuantization quantization = WAN_QUANTIZATION_NONE;
  WanMemoryMode memory = WAN_MEMORY_AUTO;
  std::vector<std::shared_ptr<const GstStructure>> loras;  // as they were set
  int num_clips = 1;
  guint queue_size = 4;
  Transition transition = Transition::Cut;
  int transition_frames = 8;
  Underrun underrun = Underrun::Repeat;
  Filler filler = Filler::Black;
  GstClockTime prebuffer = 0;
  ClipSettings clip;
  std::vector<QueuedClip> queue;  // of the property prompts; and before the start those that were enqueued
};

void install_properties(GObjectClass *klass);

/** False if the property is none of Settings. */
bool set_property(Settings *settings, guint id, const GValue *value);
bool get_property(const Settings &settings, guint id, GValue *value);

/** What makes them no settings of a clip whatever the checkpoint, as a sentence; empty if they can be. */
std::string clip_fault(const ClipSettings &settings);
/** The same of all settings. */
std::string settings_fault(const Settings &settings);
/** Whether a property is one of ClipSettings'. */
bool is_clip_property(guint id);

/** Reads the property loras. False and the reason as a sentence if a structure has no path, a field that is
 * none of a LoRA's, or a strength that is no number. */
bool read_loras(const Settings &settings, std::vector<LoraChoice> *loras, std::string *reason);

/** Reads the settings of a queued clip. False and the reason as a sentence if a field is none of them, or its
 * value none that the property can have; clip_fault() says whether a clip can be made of them. */
bool read_clip_settings(GObjectClass *klass, const GstStructure *structure, ClipSettings *clip,
                        std::string *reason);

/** A property and what to set it to. */
struct Assignment {
  GParamSpec *pspec;
  GValue value = G_VALUE_INIT;
  Assignment(GParamSpec *pspec) : pspec(pspec) {}
  Assignment(const Assignment &) = delete;
  ~Assignment() { g_value_unset(&value); }
};

/** Reads a URI, wan://prompt?property=value&..., percent-encoded: the prompt and the properties that it
 * names. False and the reason if it is none, or a property cannot have the value or is not for strangers:
 * engine, which would open any library. */
bool read_uri(GObjectClass *klass, const char *uri, std::list<Assignment> *assignments, std::string *reason);

}  // namespace wan
