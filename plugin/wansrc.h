// The element wansrc.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/base/gstpushsrc.h>

G_BEGIN_DECLS

#define GST_TYPE_WAN_SRC (gst_wan_src_get_type())
G_DECLARE_FINAL_TYPE(GstWanSrc, gst_wan_src, GST, WAN_SRC, GstPushSrc)

GST_ELEMENT_REGISTER_DECLARE(wansrc)

G_END_DECLS
