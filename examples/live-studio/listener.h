// Takes TCP connections for the web server, within limits: as many as there is room for, each for as long as
// it takes to ask for a page, unless it becomes a WebSocket.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <libsoup/soup.h>

#include <memory>
#include <string>
#include <vector>

#include "traffic.h"

namespace studio {

/** A connection, until its last stream is gone. */
class Connection : public Traffic {
 public:
  Connection(GSocketConnection *connection, GSocketAddress *remote);
  ~Connection();
  Connection(const Connection &) = delete;
  Connection &operator=(const Connection &) = delete;

  bool is_of(const GSocketAddress *remote) const { return remote == remote_; }
  /** What is sent would only be kept here, since the other side does not read what was sent before. */
  bool is_congested() const { return !g_socket_condition_check(socket_, G_IO_OUT); }
  /** Ends it without a word. */
  void cut() { g_socket_shutdown(socket_, TRUE, TRUE, nullptr); }
  gint64 age() const { return g_get_monotonic_time() - begun_; }

  bool is_websocket = false;

 private:
  GSocket *socket_;
  GSocketAddress *remote_;
  gint64 begun_ = g_get_monotonic_time();
};

using ConnectionPtr = std::shared_ptr<Connection>;

/** Whether there are file descriptors for somebody else. */
bool has_room();

class Listener {
 public:
  /** Hands what it takes to the server. Throws std::runtime_error if it cannot listen there. */
  Listener(const std::string &address, int port, SoupServer *server);
  ~Listener();
  Listener(const Listener &) = delete;
  Listener &operator=(const Listener &) = delete;

  std::string url() const;
  /** The connection that the message came by; it may stay. */
  ConnectionPtr keep(SoupServerMessage *message);

 private:
  void take(GSocketConnection *connection);
  bool make_room();
  std::vector<ConnectionPtr> requests() const;
  void cut_old();

  SoupServer *server_;
  GSocketService *service_;
  GSocketAddress *address_ = nullptr;  // that it listens at
  std::vector<std::weak_ptr<Connection>> connections_;
  guint second_ = 0;
};

}  // namespace studio
