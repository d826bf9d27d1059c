// Serves the page, and opens the WebSocket through which it speaks to the program.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <functional>
#include <string>

namespace studio {

class WebServer {
 public:
  using OnConnection = std::function<void(SoupWebsocketConnection *)>;

  /** Throws std::runtime_error if it cannot listen there. Port 0: one that is free. */
  WebServer(const std::string &address, int port, OnConnection on_connection);
  ~WebServer() { g_object_unref(server_); }
  WebServer(const WebServer &) = delete;
  WebServer &operator=(const WebServer &) = delete;

  std::string url() const;

 private:
  void add_page(const char *path);

  SoupServer *server_;
  OnConnection on_connection_;
};

}  // namespace studio
