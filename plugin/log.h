// The debug category of the plugin: GST_DEBUG=wansrc:5. INFO tells choices, DEBUG a line a clip, LOG a line a
// frame.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

namespace wan {

/** Made when the element is registered. */
inline GstDebugCategory *wansrc_debug = nullptr;

}  // namespace wan

#define GST_CAT_DEFAULT ::wan::wansrc_debug
