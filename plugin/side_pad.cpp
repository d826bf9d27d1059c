// SPDX-License-Identifier: LGPL-2.1-or-later
#include "side_pad.h"

#include <initializer_list>

namespace wan {

// The pad that sends to this one, through the ghost pads of bins; none if it is not linked.
static GstPad *source_of(GstPad *pad) {
  GstPad *peer = gst_pad_get_peer(pad);
  while (peer && GST_IS_PROXY_PAD(peer) && !GST_IS_GHOST_PAD(peer)) {
    GstProxyPad *ghost = gst_proxy_pad_get_internal(GST_PROXY_PAD(peer));
    gst_object_unref(peer);
    peer = ghost ? gst_pad_get_peer(GST_PAD(ghost)) : nullptr;
    gst_clear_object(&ghost);
  }
  return peer;
}

bool is_fed(GstPad *pad) {
  GstPad *source = source_of(pad);
  const bool fed = source != nullptr;
  gst_clear_object(&source);
  return fed;
}

void watch_link(GstPad *pad, void (*changed)(GstPad *pad)) {
  gst_pad_set_iterate_internal_links_function(pad,
                                              [](GstPad *, GstObject *) -> GstIterator * { return nullptr; });
  const auto call =
      +[](GstPad *pad, GstPad *, gpointer changed) { reinterpret_cast<void (*)(GstPad *)>(changed)(pad); };
  for (const char *signal : {"linked", "unlinked"})
    g_signal_connect(pad, signal, G_CALLBACK(call), reinterpret_cast<gpointer>(changed));
}

}  // namespace wan
