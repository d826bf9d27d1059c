// One page's connection: reads what it sends, answers each message that is wrong, and holds its viewer.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <functional>
#include <memory>
#include <string>

#include "allowance.h"
#include "json.h"
#include "listener.h"
#include "picture.h"
#include "viewer.h"

namespace studio {

class Session {
 public:
  using OnMessage = std::function<void(Session *, const Message &)>;
  using OnClosed = std::function<void(Session *)>;

  Session(SoupWebsocketConnection *websocket, ConnectionPtr connection, OnMessage on_message,
          OnClosed on_closed);
  ~Session();
  Session(const Session &) = delete;
  Session &operator=(const Session &) = delete;

  void send(const std::string &text);
  void send(const Json &json) { send(json.to_string()); }
  void send_error(const std::string &message) { send(Json("error").text("message", message)); }
  /** News that the next ones replace: not sent while the page does not read what it got before. */
  void send_news(const std::string &text);
  void close(gushort code, const char *reason);
  /** Each second: closes the connection if the page has not answered, or not read, for long, and gives up
   * video that nobody takes. */
  void look_after();
  /** Runs it when the main loop has nothing else to do, unless something newer is to be run by then. */
  void run_soon(std::function<void()> run);
  /** Throws BadMessage if the page may only watch. */
  void check_may_steer() const;
  /** Throws BadMessage if video was asked for too often. */
  void count_watch();

  std::shared_ptr<Viewer> viewer;  // none until the page asks for video
  bool may_steer = false;          // and not only watch
  PicturePtr picture;              // for the next clip that the page queues with one

 private:
  bool is_allowed();
  void run();
  void on_message(gint type, GBytes *bytes);
  void on_text(const std::string &text);
  void on_picture(GBytes *bytes);

  SoupWebsocketConnection *websocket_;
  ConnectionPtr connection_;
  OnMessage on_message_;
  OnClosed on_closed_;
  gint64 heard_ = g_get_monotonic_time(), read_ = heard_;  // when the page last sent, and read, something
  Allowance messages_{256, 32}, watches_{48, 1}, complaints_{1, 1};
  int refused_ = 0;
  std::function<void()> run_;
  guint running_ = 0;
};

}  // namespace studio
