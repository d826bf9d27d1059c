// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>

#include "wansrc.h"

static gboolean plugin_init(GstPlugin *plugin) {
  return GST_ELEMENT_REGISTER(wansrc, plugin);
}

GST_PLUGIN_DEFINE(GST_VERSION_MAJOR, GST_VERSION_MINOR, wan, "Video from text and pictures with Wan diffusion models",
                  plugin_init, WAN_VERSION, "LGPL", "gst-wan", WAN_ORIGIN)
