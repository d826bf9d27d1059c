// Caps of the video: what the template offers, how open fields are fixated, and how the engine hears of the
// result.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/video/video.h>

#include <string>

#include "wan/engine.h"

namespace wan {

inline constexpr char kVideoCaps[] =
    "video/x-raw, format = { NV12, I420, RGB, RGBx, BGRx, RGBA, BGRA }, "
    "width = (int) [ 16, max ], height = (int) [ 16, max ], framerate = (fraction) [ 1/2147483647, max ], "
    "pixel-aspect-ratio = (fraction) 1/1, interlace-mode = (string) progressive";

/** Fixates to the checkpoint's own size and rate, as near as downstream lets it: the first alternative that
 * can be made, and if there is none the first of all, to be refused by name. Takes the caps, a subset of
 * kVideoCaps. */
GstCaps *fixate_caps(GstCaps *caps, const WanDefaults &defaults);

/** What of fixed caps says how frames are made. Other fields (chroma-site, multiview-mode) are left out: they
 * may come and go while frames are on their way. */
GstCaps *frame_caps(const GstCaps *caps);

/** Fills the layout of frames of `info`, or says in a sentence why the checkpoint cannot make them. */
bool pixel_layout(const GstVideoInfo &info, const WanDefaults &defaults, WanPixelLayout *layout,
                  std::string *reason);

bool same_layout(const WanPixelLayout &one, const WanPixelLayout &other);

}  // namespace wan
