// The wansrc of the studio: what viewers change of it, and what they see of it.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <map>
#include <string>

#include "history.h"
#include "json.h"
#include "picture.h"

namespace studio {

inline constexpr size_t kLongestPrompt = 2000;  // bytes

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

  /** Whether the model makes one endless video. */
  bool is_endless() const;
  /** Queues a clip. Returns its id, likewise below. */
  guint enqueue(const Scene &scene) { return enqueue(scene, nullptr); }
  /** Of an endless video: cuts to a new scene, in place of all that is queued. It goes on until it is
   * changed. */
  guint cut_to(const Scene &scene);
  /** Shows a scene of the history again: at once where the video is endless, else after the queue. */
  guint show_again(const Message &message);
  /** Changes settings, from the next clip on: all that the message names, or none if one cannot be. */
  void set(const Message &message);
  void skip() { g_signal_emit_by_name(element_, "skip"); }
  void clear() { g_signal_emit_by_name(element_, "clear"); }

  /** Takes an element message of wansrc's. */
  void note(const GstStructure *structure);
  /** Takes why wansrc does not do what is just asked of it. */
  void note_refusal(const std::string &reason) { refusal_ = reason; }
  void describe(Json *state) const;
  /** The picture of a clip that is queued, made, on air or in the history; null if it has none. */
  PicturePtr picture(guint id) const;

 private:
  guint enqueue(const Scene &scene, const char *prompt_switch);
  size_t queue_length() const;
  std::vector<Json> queue() const;
  GstStructure *stats() const;
  void add_to_history();
  void throw_refusal() const;

  GstElement *element_;
  std::map<guint, Scene> clips_;    // that were queued and have not ended; those in the queue are the last
  std::string refusal_;             // of the newest request, empty if there was none
  GstStructure *on_air_ = nullptr;  // the newest wan-clip
  History history_;
};

}  // namespace studio
