// What the element's sink pads share.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

namespace wan {

/** Whether an element sends to this pad, through the ghost pads of bins. */
bool is_fed(GstPad *pad);

/** For a new pad: `changed` is called when it is linked or unlinked, also through the ghost pads of bins that
 * is_fed() has come by. Nothing goes on from it to the source pad. */
void watch_link(GstPad *pad, void (*changed)(GstPad *pad));

/** A time that is later by a duration, which may be unknown. */
GstClockTime later(GstClockTime time, GstClockTime duration);

/** The running time of a time of the segment, or of its end if that comes first; none of other formats. */
GstClockTime running_end(const GstSegment &segment, GstClockTime time);

/** The running time at which a GAP event ends; none if it has none in this segment. A gap without a duration
 * ends where it begins. */
GstClockTime gap_end(const GstSegment &segment, GstEvent *event);

}  // namespace wan
