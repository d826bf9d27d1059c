// SPDX-License-Identifier: LGPL-2.1-or-later
#include "side_pad.h"

#include <algorithm>
#include <initializer_list>

namespace wan {
namespace {

constexpr const char *kChanged = "wan-link-changed";

bool is_inside_of_ghost(GstPad *pad) {
  return GST_IS_PROXY_PAD(pad) && !GST_IS_GHOST_PAD(pad);
}

// The ghost pad of a bin through which this pad is fed; none if it is linked otherwise, or not at all.
GstPad *ghost_of(GstPad *pad) {
  GstPad *peer = gst_pad_get_peer(pad);
  GstProxyPad *ghost =
      peer && is_inside_of_ghost(peer) ? gst_proxy_pad_get_internal(GST_PROXY_PAD(peer)) : nullptr;
  gst_clear_object(&peer);
  return ghost ? GST_PAD(ghost) : nullptr;
}

void link_changed(GstPad *, GstPad *, gpointer pad);

// Each signal once, for as long as both pads live.
void listen(GstPad *link, GstPad *pad) {
  constexpr auto kSame = GSignalMatchType(G_SIGNAL_MATCH_ID | G_SIGNAL_MATCH_FUNC | G_SIGNAL_MATCH_DATA);
  for (const char *name : {"linked", "unlinked"}) {
    const guint id = g_signal_lookup(name, GST_TYPE_PAD);
    if (!g_signal_handler_find(link, kSame, id, 0, nullptr, gpointer(link_changed), pad))
      g_signal_connect_object(link, name, G_CALLBACK(link_changed), pad, GConnectFlags(0));
  }
}

// The outermost pad through which this one is fed, or itself; hears of the links on the way.
GstPad *outermost(GstPad *pad) {
  GstPad *link = GST_PAD(gst_object_ref(pad));
  listen(link, pad);
  while (GstPad *ghost = ghost_of(link)) {
    gst_object_unref(link);
    link = ghost;
    listen(link, pad);
  }
  return link;
}

void link_changed(GstPad *, GstPad *, gpointer pad) {
  reinterpret_cast<void (*)(GstPad *)>(g_object_get_data(G_OBJECT(pad), kChanged))(GST_PAD(pad));
}

}  // namespace

bool is_fed(GstPad *pad) {
  GstPad *link = outermost(pad);
  GstPad *source = gst_pad_get_peer(link);
  const bool fed = source && !is_inside_of_ghost(source);
  gst_clear_object(&source);
  gst_object_unref(link);
  return fed;
}

void watch_link(GstPad *pad, void (*changed)(GstPad *pad)) {
  gst_pad_set_iterate_internal_links_function(pad,
                                              [](GstPad *, GstObject *) -> GstIterator * { return nullptr; });
  g_object_set_data(G_OBJECT(pad), kChanged, reinterpret_cast<gpointer>(changed));
  gst_object_unref(outermost(pad));
}

GstClockTime later(GstClockTime time, GstClockTime duration) {
  return GST_CLOCK_TIME_IS_VALID(duration) ? time + std::min(duration, GST_CLOCK_TIME_NONE - 1 - time)
                                           : GST_CLOCK_TIME_NONE;
}

GstClockTime running_end(const GstSegment &segment, GstClockTime time) {
  if (segment.format != GST_FORMAT_TIME) return GST_CLOCK_TIME_NONE;
  if (GST_CLOCK_TIME_IS_VALID(segment.stop)) time = std::min<GstClockTime>(time, segment.stop);
  return gst_segment_to_running_time(&segment, GST_FORMAT_TIME, time);
}

GstClockTime gap_end(const GstSegment &segment, GstEvent *event) {
  GstClockTime time, duration;
  gst_event_parse_gap(event, &time, &duration);
  if (!GST_CLOCK_TIME_IS_VALID(time)) return GST_CLOCK_TIME_NONE;
  return running_end(segment, GST_CLOCK_TIME_IS_VALID(duration) ? later(time, duration) : time);
}

}  // namespace wan
