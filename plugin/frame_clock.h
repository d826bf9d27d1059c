// The times of frames at a fixed rate.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <algorithm>

namespace wan {

/** Frame n begins n / rate after the first one. Exact, in nanoseconds, rounded down. */
struct FrameClock {
  int fps_n = 0, fps_d = 1;  // frames a second; 0: not known yet

  /** Saturates: scripts may speak of centuries, and rates of millions. */
  GstClockTime time_of(guint64 frame) const {
    return std::min<guint64>(gst_util_uint64_scale(frame, unit(), guint64(fps_n)), G_MAXINT64);
  }
  GstClockTime duration_of(guint64 frame) const { return time_of(frame + 1) - time_of(frame); }
  /** The frame that is shown at a time. */
  guint64 frame_at(GstClockTime time) const { return gst_util_uint64_scale(time, guint64(fps_n), unit()); }
  /** The first frame that begins at a time or after it. */
  guint64 frame_from(GstClockTime time) const {
    return std::min<guint64>(gst_util_uint64_scale_ceil(time, guint64(fps_n), unit()), G_MAXINT64);
  }
  bool operator==(const FrameClock &) const = default;

 private:
  guint64 unit() const { return GST_SECOND * guint64(fps_d); }
};

}  // namespace wan
