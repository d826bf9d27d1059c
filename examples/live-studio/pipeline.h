// The running pipeline: one wansrc, one encoder for each codec, and a tee behind each that viewers, and a
// recording, are added to.
//
//     wansrc ! tee ! valve ! queue ! vp8enc  ! tee ! (viewers)
//                  ! valve ! queue ! x264enc ! tee ! (viewers)
//
// An encoder works while it has viewers.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <functional>
#include <string>
#include <vector>

namespace studio {

struct VideoOptions {
  int width = 0, height = 0, fps = 0;  // 0: as the model suggests
};

struct Codec {
  const char *name;       // in messages, and its tee's
  const char *encoder;    // launch line
  const char *payloader;  // launch line
  const char *rtp_caps;
  const char *bitrate_property;
  int bitrate_unit;  // bits a second
};

struct PipelineEvents {
  std::function<void(const GstStructure *)> source_message;
  std::function<void(GstElement *branch, const std::string &error)> branch_failed;
  std::function<void(const std::string &error)> failed;
  std::function<void(const std::string &reason)>
      refused;  // while the main loop asks the source for something
};

class Pipeline {
 public:
  /** Throws std::runtime_error if an element is missing. */
  Pipeline(const VideoOptions &options, PipelineEvents events);
  ~Pipeline();
  Pipeline(const Pipeline &) = delete;
  Pipeline &operator=(const Pipeline &) = delete;

  GstElement *source() const { return source_; }
  /** Throws std::runtime_error. */
  void play();

  /** Null if there is no such codec. */
  static const Codec *find_codec(const std::string &name);

  /** Adds a viewer's branch, or a recording's, with one sink pad "sink", and plays it. Takes the branch. */
  void attach(const Codec &codec, GstElement *branch);
  /** It gets no more. */
  void unlink(const Codec &codec, GstElement *branch);
  /** Stops and removes what is unlinked. */
  void remove(GstElement *branch);
  void force_key_frame(const Codec &codec);

 private:
  GstElement *find(const std::string &name) const;
  void open(const Codec &codec, bool open);
  GstBusSyncReply on_message_at_once(GstMessage *message);
  void on_message(GstMessage *message);
  void on_error(GstMessage *message);
  bool is_branch(GstObject *object, GstElement **branch) const;

  PipelineEvents events_;
  GstElement *pipeline_ = nullptr, *source_ = nullptr;
  std::vector<GstElement *> branches_;
  guint watch_ = 0;
};

}  // namespace studio
