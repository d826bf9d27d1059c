// The wansrc of the studio: what viewers change of it, and what they see of it.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <map>
#include <string>

#include "json.h"
#include "picture.h"

namespace studio {

struct SourceOptions {
  std::string model, prompt, image;
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

  /** Queues a clip that begins with the picture, if it is not null. Returns its id. */
  guint enqueue(const Message &message, const PicturePtr &picture);
  /** Changes settings, from the next clip on: all that the message names, or none if one cannot be. */
  void set(const Message &message);
  void skip() { g_signal_emit_by_name(element_, "skip"); }
  void clear() { g_signal_emit_by_name(element_, "clear"); }

  /** Takes an element message of wansrc's. */
  void note(const GstStructure *structure);
  /** Takes why wansrc does not do what is just asked of it. */
  void note_refusal(const std::string &reason) { refusal_ = reason; }
  void describe(Json *state) const;
  /** The picture of a queued clip, or of one that is made or on air; null if it has none. */
  PicturePtr picture(guint id) const;

 private:
  struct Clip {
    std::string prompt;
    PicturePtr picture;
  };

  size_t queue_length() const;
  std::vector<Json> queue() const;
  void throw_refusal() const;

  GstElement *element_;
  std::map<guint, Clip> clips_;     // that were queued and have not ended; those in the queue are the last
  std::string refusal_;             // of the newest request, empty if there was none
  GstStructure *on_air_ = nullptr;  // the newest wan-clip
};

}  // namespace studio
