// What was on air, to be shown again.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "json.h"
#include "picture.h"

namespace studio {

/** What is asked for. */
struct Scene {
  std::string prompt;
  PicturePtr picture;           // that it begins with; null: none
  std::optional<guint64> seed;  // none: the next one
};

/** The newest scenes, each once. */
class History {
 public:
  /** A clip is on air: `id` is wansrc's, 0 if nobody has queued it, and `begun` its running time. It is no
   * new scene if it only goes on with the one before it, and one that a prompt changed on the way to another
   * one is left out. */
  void add(const Scene &scene, guint id, GstClockTime begun);
  /** By the number that describe() gave it. Throws BadMessage. */
  const Scene &find(gint64 number) const;
  /** Of the clip of this id; null if there is none. */
  PicturePtr picture(guint id) const;
  /** The newest one first. */
  std::vector<Json> describe() const;

 private:
  struct Entry {
    gint64 number;
    Scene scene;
    guint id;
    GstClockTime begun;
  };

  std::deque<Entry> entries_;  // the newest one last
  gint64 last_number_ = 0;
};

}  // namespace studio
