// The request pad "prompt_sink", which takes prompts as text with timestamps.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <memory>

#include "prompt_track.h"

namespace wan {

inline constexpr char kPromptCaps[] = "text/x-raw, format = (string) { utf8, pango-markup }";

/** A pad that fills the track, and tells it whether the pad is linked and when it begins anew. Text without a
 * timestamp begins where the one before it ends; where that is open, or time is not what the stream counts
 * in, it is shown from now on. */
GstPad *prompt_pad_new(GstPadTemplate *pad_template, std::shared_ptr<PromptTrack> track);

/** Tells the track of a pad whether text can come in: of links in between, ghost pads have some, nobody
 * hears. */
void prompt_pad_update_link(GstPad *pad);

}  // namespace wan
