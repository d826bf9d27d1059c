// SPDX-License-Identifier: LGPL-2.1-or-later
#include "listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <stdexcept>

namespace studio {
namespace {

constexpr size_t kMostRequests = 64;  // connections that are no WebSocket
constexpr gint64 kLongestRequest = 6 * G_USEC_PER_SEC, kShortestRequest = G_USEC_PER_SEC;
constexpr size_t kReserve = 96;  // descriptors that are left to the viewers that there are
constexpr int kSendBuffer = 64 * 1024;
constexpr char kNoRoom[] =
    "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 5\r\nConnection: close\r\n\r\n";

size_t descriptors_left() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  std::error_code error;
  const std::filesystem::directory_iterator open("/proc/self/fd", error);
  const auto used = size_t(std::distance(begin(open), end(open)));
  return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

}  // namespace

bool has_room() {
  return descriptors_left() >= kReserve;
}

Connection::Connection(GSocketConnection *connection, GSocketAddress *remote)
    : socket_(G_SOCKET(g_object_ref(g_socket_connection_get_socket(connection)))),
      remote_(G_SOCKET_ADDRESS(g_object_ref(remote))) {
  g_socket_set_option(socket_, IPPROTO_TCP, TCP_NODELAY, TRUE, nullptr);
  g_socket_set_option(socket_, SOL_SOCKET, SO_SNDBUF, kSendBuffer, nullptr);
}

Connection::~Connection() {
  g_object_unref(socket_);
  g_object_unref(remote_);
}

Listener::Listener(const std::string &address, int port, SoupServer *server)
    : server_(server), service_(g_socket_service_new()) {
  g_autoptr(GError) error = nullptr;
  g_autoptr(GSocketAddress) wanted = g_inet_socket_address_new_from_string(address.c_str(), guint(port));
  if (!wanted) throw std::runtime_error("\"" + address + "\" is no IP address.");
  g_socket_listener_set_backlog(G_SOCKET_LISTENER(service_), SOMAXCONN);
  if (!g_socket_listener_add_address(G_SOCKET_LISTENER(service_), wanted, G_SOCKET_TYPE_STREAM,
                                     G_SOCKET_PROTOCOL_TCP, nullptr, &address_, &error))
    throw std::runtime_error("Cannot listen on " + address + ", port " + std::to_string(port) + ": " +
                             error->message);
  const auto incoming = +[](GSocketService *, GSocketConnection *connection, GObject *, Listener *self) {
    self->take(connection);
    return gboolean{TRUE};
  };
  g_signal_connect(service_, "incoming", G_CALLBACK(incoming), this);
  const auto second = [](gpointer self) -> gboolean {
    static_cast<Listener *>(self)->cut_old();
    return G_SOURCE_CONTINUE;
  };
  second_ = g_timeout_add_seconds(1, second, this);
}

Listener::~Listener() {
  g_clear_handle_id(&second_, g_source_remove);
  g_signal_handlers_disconnect_by_data(service_, this);
  g_socket_service_stop(service_);
  g_socket_listener_close(G_SOCKET_LISTENER(service_));
  g_object_unref(service_);
  g_clear_object(&address_);
}

std::string Listener::url() const {
  auto *address = G_INET_SOCKET_ADDRESS(address_);
  g_autofree char *name = g_inet_address_to_string(g_inet_socket_address_get_address(address));
  g_autofree char *url = g_uri_join(G_URI_FLAGS_NONE, "http", nullptr, name,
                                    g_inet_socket_address_get_port(address), "/", nullptr, nullptr);
  return url;
}

std::vector<ConnectionPtr> Listener::requests() const {
  std::vector<ConnectionPtr> requests;
  for (const auto &each : connections_)
    if (ConnectionPtr connection = each.lock(); connection && !connection->is_websocket)
      requests.push_back(connection);
  return requests;
}

// Of those that ask for nothing, the oldest gives way: a page is asked for at once.
bool Listener::make_room() {
  std::erase_if(connections_, [](const auto &each) { return each.expired(); });
  if (!has_room()) return false;
  const auto requests = this->requests();
  if (requests.size() < kMostRequests) return true;
  if (requests.front()->age() < kShortestRequest) return false;
  requests.front()->cut();
  return true;
}

void Listener::take(GSocketConnection *connection) {
  if (!make_room()) {
    g_socket_send(g_socket_connection_get_socket(connection), kNoRoom, sizeof kNoRoom - 1, nullptr, nullptr);
    g_io_stream_close(G_IO_STREAM(connection), nullptr, nullptr);
    return;
  }
  g_autoptr(GSocketAddress) local = g_socket_connection_get_local_address(connection, nullptr);
  g_autoptr(GSocketAddress) remote = g_socket_connection_get_remote_address(connection, nullptr);
  if (!remote) return;  // it has gone again
  const auto counted = std::make_shared<Connection>(connection, remote);
  connections_.push_back(counted);
  g_autoptr(GIOStream) stream = limit_stream(G_IO_STREAM(connection), counted);
  soup_server_accept_iostream(server_, stream, local, remote, nullptr);
}

ConnectionPtr Listener::keep(SoupServerMessage *message) {
  const GSocketAddress *remote = soup_server_message_get_remote_address(message);
  for (const auto &each : connections_) {
    ConnectionPtr connection = each.lock();
    if (!connection || !connection->is_of(remote)) continue;
    connection->is_websocket = true;
    connection->was_whole();
    return connection;
  }
  return nullptr;
}

void Listener::cut_old() {
  for (const ConnectionPtr &connection : requests())
    if (connection->age() > kLongestRequest) connection->cut();
}

}  // namespace studio
