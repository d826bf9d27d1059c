// The request pads "image_sink" and "last_image_sink", which take pictures as raw video.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <memory>

#include "picture_track.h"

namespace wan {

/** A pad that fills the track: each buffer is the picture from its running time on. One without a timestamp
 * is the picture from the beginning on. */
GstPad *picture_pad_new(GstPadTemplate *pad_template, const char *name, std::shared_ptr<PictureTrack> track);

/** Tells the track of a pad whether pictures can come in, as prompt_pad_update_link(). */
void picture_pad_update_link(GstPad *pad);

}  // namespace wan
