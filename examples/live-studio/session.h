// One page's connection: reads what it sends, answers each message that is wrong, and holds its viewer.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <functional>
#include <memory>
#include <string>

#include "json.h"
#include "picture.h"
#include "viewer.h"

namespace studio {

class Session {
 public:
  using OnMessage = std::function<void(Session *, const Message &)>;
  using OnClosed = std::function<void(Session *)>;

  Session(SoupWebsocketConnection *connection, OnMessage on_message, OnClosed on_closed);
  ~Session();
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;

  void send(const std::string &text);
  void send(const Json &json) { send(json.to_string()); }
  void send_error(const std::string &message) { send(Json("error").text("message", message)); }
  void close(gushort code, const char *reason);
  /** Closes the connection if the page has not answered for long: its machine is gone, or its network is. */
  void close_if_silent();

  std::shared_ptr<Viewer> viewer;  // none until the page asks for video
  PicturePtr picture;              // for the next clip that the page queues with one

 private:
  void on_message(gint type, GBytes *bytes);
  void on_text(const std::string &text);
  void on_picture(GBytes *bytes);

  SoupWebsocketConnection *connection_;
  OnMessage on_message_;
  OnClosed on_closed_;
  gint64 heard_ = g_get_monotonic_time();
};

}  // namespace studio
