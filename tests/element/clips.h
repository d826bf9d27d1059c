// Clips as a test sees them: the messages that tell of them, the queue, and the pad for timed prompts.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/app/gstappsrc.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "support.h"

namespace wan::test {

inline constexpr GstClockTime kFrame = GST_SECOND / 25;  // of the stub

struct Shown {
  std::string prompt;
  guint64 seed;
  GstClockTime pts;
  bool operator==(const Shown &) const = default;
};
inline std::ostream &operator<<(std::ostream &out, const Shown &shown) {
  return out << shown.prompt << " seed " << shown.seed << " at " << shown.pts;
}

// The clips of a run, by its messages wan-clip.
inline std::vector<Shown> clips(const Pipeline &pipeline) {
  std::vector<Shown> clips;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    if (!gst_structure_has_name(structure, "wan-clip")) continue;
    Shown shown = {gst_structure_get_string(structure, "prompt"), 0, 0};
    gst_structure_get(structure, "seed", G_TYPE_UINT64, &shown.seed, "pts", G_TYPE_UINT64, &shown.pts,
                      nullptr);
    clips.push_back(shown);
  }
  return clips;
}

// The prompts of a run, each once where clips of the same follow on each other.
inline std::vector<std::string> films(const Pipeline &pipeline) {
  std::vector<std::string> prompts;
  for (const Shown &clip : clips(pipeline))
    if (prompts.empty() || prompts.back() != clip.prompt) prompts.push_back(clip.prompt);
  return prompts;
}

inline guint enqueue(const Pipeline &pipeline, const char *prompt, const char *settings = nullptr) {
  GstStructure *structure = settings ? gst_structure_from_string(settings, nullptr) : nullptr;
  EXPECT_EQ(settings != nullptr, structure != nullptr);
  guint id = 0;
  g_signal_emit_by_name(pipeline.find("src").get(), "enqueue", prompt, structure, &id);
  g_clear_pointer(&structure, gst_structure_free);
  return id;
}

// A number in the newest element message of a name, waited for where there is none yet.
inline guint64 wait_for(Pipeline &pipeline, const char *name, const char *field) {
  while (const GstMessage *message = pipeline.wait(GstMessageType(GST_MESSAGE_ELEMENT | GST_MESSAGE_ERROR))) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) break;
    if (!gst_structure_has_name(structure, name)) continue;
    guint number = 0;
    EXPECT_TRUE(gst_structure_get_uint(structure, field, &number));
    return number;
  }
  ADD_FAILURE() << "no message " << name;
  return 0;
}

inline GstBuffer *text_buffer(const std::string &text, GstClockTime pts, GstClockTime duration) {
  GstBuffer *buffer = gst_buffer_new_memdup(text.data(), text.size());
  GST_BUFFER_PTS(buffer) = pts;
  GST_BUFFER_DURATION(buffer) = duration;
  return buffer;
}

inline const std::string kText =
    " appsrc name=text format=time caps=text/x-raw,format=utf8 ! src.prompt_sink";

inline void push_text(const Pipeline &pipeline, const std::string &text, GstClockTime pts,
                      GstClockTime duration) {
  gst_app_src_push_buffer(GST_APP_SRC(pipeline.find("text").get()), text_buffer(text, pts, duration));
}

inline void end_text(const Pipeline &pipeline) {
  gst_app_src_end_of_stream(GST_APP_SRC(pipeline.find("text").get()));
}

}  // namespace wan::test
