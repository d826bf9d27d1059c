// The wansrc of the studio: what viewers change of it, and what they see of it.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <string>

#include "json.h"

namespace studio {

struct SourceOptions {
  std::string model, prompt;
  int steps = 0, num_frames = 0;  // 0: as the model suggests
  gint64 seed = -1;               // -1: random
};

class Source {
 public:
  /** Takes a reference of a wansrc that does not run yet. */
  Source(GstElement *element, const SourceOptions &options);
  ~Source();
  Source(const Source &) = delete;
  Source &operator=(const Source &) = delete;

  void enqueue(const Message &message);
  /** Changes settings, from the next clip on: all that the message names, or none if one cannot be. */
  void set(const Message &message);
  void skip() { g_signal_emit_by_name(element_, "skip"); }
  void clear() { g_signal_emit_by_name(element_, "clear"); }

  /** Takes an element message of wansrc's. */
  void note(const GstStructure *structure);
  void describe(Json *state) const;

 private:
  std::vector<std::string> queue() const;

  GstElement *element_;
  GstStructure *on_air_ = nullptr;  // the newest wan-clip
};

}  // namespace studio
