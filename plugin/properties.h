// The properties of the element, and a clip's settings as fields of a structure.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <memory>
#include <string>
#include <vector>

#include "clip_settings.h"
#include "enums.h"
#include "model_pool.h"

namespace wan {

/** Properties that are no settings: the base class keeps whether it is live, and statistics are only read.
 * The others are numbered from 1 on, in the order in which they are shown. */
enum { PROP_IS_LIVE = 1000, PROP_STATS };

/** What the properties hold, but is-live, which GstBaseSrc keeps. */
struct Settings {
  std::string model, device = "auto", decoder_device, worker, decoder = "full", engine;
  WanDtype dtype = WAN_DTYPE_AUTO;
  WanQuantization quantization = WAN_QUANTIZATION_NONE;
  WanMemoryMode memory = WAN_MEMORY_AUTO;
  std::vector<std::shared_ptr<const GstStructure>> loras;  // as they were set
  int num_clips = 1;
  guint queue_size = 4;
  WanContinuity continuity = WAN_CONTINUITY_NONE;
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

/** What makes them no settings whatever the checkpoint, as a sentence; empty if they can be. */
std::string settings_fault(const Settings &settings);
/** Whether a property is one of ClipSettings'. */
bool is_clip_property(const GParamSpec *pspec);
/** The element's own property of this name: the classes above number theirs for themselves. None if there is
 * none. */
GParamSpec *own_property(GObjectClass *klass, const char *name);

/** Reads the property loras. False and the reason as a sentence if a structure has no path, a field that is
 * none of a LoRA's, or a strength that is no number. */
bool read_loras(const Settings &settings, std::vector<LoraChoice> *loras, std::string *reason);

/** Reads the settings of a queued clip. False and the reason as a sentence if a field is none of them, or its
 * value none that the property can have; clip_fault() says whether a clip can be made of them. */
bool read_clip_settings(GObjectClass *klass, const GstStructure *structure, ClipSettings *clip,
                        std::string *reason);

}  // namespace wan
