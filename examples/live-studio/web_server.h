// Serves the page, and opens the WebSocket through which it speaks to the program.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <functional>
#include <string>

#include "listener.h"
#include "picture.h"

namespace studio {

class WebServer {
 public:
  using OnConnection = std::function<void(SoupWebsocketConnection *, const ConnectionPtr &)>;
  using FindPicture = std::function<PicturePtr(guint clip)>;

  /** Throws std::runtime_error if it cannot listen there. Port 0: one that is free. */
  WebServer(const std::string &address, int port, FindPicture find_picture, OnConnection on_connection);
  ~WebServer();
  WebServer(const WebServer &) = delete;
  WebServer &operator=(const WebServer &) = delete;

  std::string url() const { return listener_.url(); }

 private:
  void serve_picture(SoupServerMessage *message, const std::string &path) const;

  SoupServer *server_;
  Listener listener_;
  FindPicture find_picture_;
  OnConnection on_connection_;
};

}  // namespace studio
