// The studio: takes what pages send to the source and to their viewers, and tells all of them how things are.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pipeline.h"
#include "recording.h"
#include "session.h"
#include "source.h"
#include "viewer.h"

namespace studio {

class Studio {
 public:
  /** Called once, without text when it was asked to end, else with what went wrong. */
  using OnEnded = std::function<void(const std::string &error)>;

  /** Throws std::runtime_error. */
  Studio(const VideoOptions &video, const SourceOptions &source, const NetworkOptions &network,
         const RecordingOptions &recordings, OnEnded on_ended);
  ~Studio();
  Studio(const Studio &) = delete;
  Studio &operator=(const Studio &) = delete;

  /** Throws std::runtime_error. */
  void play() { pipeline_.play(); }
  /** Takes a page's connection. */
  void add(SoupWebsocketConnection *websocket, const ConnectionPtr &connection);
  /** Of a clip that is queued, made or on air; null if it has none. */
  PicturePtr picture(guint clip) const { return source_.picture(clip); }
  /** Takes leave of the pages, then ends. */
  void close();

 private:
  void follow(Session *session, const Message &message);
  void show_scene(Session *session, const Message &message);
  void record(Session *session, bool on);
  void on_recorded(const std::string &reason);
  void let_steer(Session *session, const std::string &token);
  void watch(Session *session, const Message &message);
  void show(Session *session, const Codec &codec);
  void remove(Session *session);
  void on_branch_failed(GstElement *branch, const std::string &error);
  void tell_soon();
  void tell();
  void end_if_all_are_gone();
  void end(const std::string &error);

  NetworkOptions network_;
  RecordingOptions recordings_;
  OnEnded on_ended_;
  Pipeline pipeline_;
  Source source_;
  std::shared_ptr<Recording> recording_;            // null: there is none
  std::vector<std::unique_ptr<Session>> sessions_;  // gone before the pipeline that their viewers are part of
  guint second_ = 0, telling_ = 0, closing_ = 0;
};

}  // namespace studio
