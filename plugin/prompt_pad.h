// The request pad "prompt_sink", which takes prompts as text with timestamps.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <memory>

#include "prompt_track.h"

namespace wan {

inline constexpr char kPromptCaps[] = "text/x-raw, format = (string) utf8";

/** A pad that fills the track. Text without a timestamp begins where the one before it ends, or at 0. */
GstPad *prompt_pad_new(GstPadTemplate *pad_template, std::shared_ptr<PromptTrack> track);

}  // namespace wan
