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

}  // namespace wan
