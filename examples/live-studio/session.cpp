// SPDX-License-Identifier: LGPL-2.1-or-later
#include "session.h"

namespace studio {
namespace {

constexpr gsize kLongestMessage = 32 * 1024;      // answered by an error
constexpr guint64 kLargestMessage = 1024 * 1024;  // ends the connection
constexpr guint kPingSeconds = 5;
constexpr gint64 kSilence = 20 * G_USEC_PER_SEC;

}  // namespace

Session::Session(SoupWebsocketConnection *connection, OnMessage on_message, OnClosed on_closed)
    : connection_(SOUP_WEBSOCKET_CONNECTION(g_object_ref(connection))),
      on_message_(std::move(on_message)),
      on_closed_(std::move(on_closed)) {
  const auto message = +[](SoupWebsocketConnection *, gint type, GBytes *bytes, Session *self) {
    self->heard_ = g_get_monotonic_time();
    self->on_message(type, bytes);
  };
  const auto pong =
      +[](SoupWebsocketConnection *, GBytes *, Session *self) { self->heard_ = g_get_monotonic_time(); };
  const auto closed = +[](SoupWebsocketConnection *, Session *self) { self->on_closed_(self); };
  g_signal_connect(connection, "message", G_CALLBACK(message), this);
  g_signal_connect(connection, "pong", G_CALLBACK(pong), this);
  g_signal_connect(connection, "closed", G_CALLBACK(closed), this);
  soup_websocket_connection_set_max_incoming_payload_size(connection, kLargestMessage);
  soup_websocket_connection_set_keepalive_interval(connection, kPingSeconds);
}

Session::~Session() {
  g_signal_handlers_disconnect_by_data(connection_, this);
  g_object_unref(connection_);
}

void Session::send(const std::string &text) {
  if (soup_websocket_connection_get_state(connection_) == SOUP_WEBSOCKET_STATE_OPEN)
    soup_websocket_connection_send_text(connection_, text.c_str());
}

void Session::close(gushort code, const char *reason) {
  if (soup_websocket_connection_get_state(connection_) == SOUP_WEBSOCKET_STATE_OPEN)
    soup_websocket_connection_close(connection_, code, reason);
}

void Session::close_if_silent() {
  if (g_get_monotonic_time() - heard_ > kSilence)
    close(SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "no answer to pings");
}

// What is wrong is answered, and changes nothing.
void Session::on_message(gint type, GBytes *bytes) try {
  if (type == SOUP_WEBSOCKET_DATA_BINARY) return on_picture(bytes);
  gsize size = 0;
  const auto *data = static_cast<const char *>(g_bytes_get_data(bytes, &size));
  on_text(std::string(data, size));
} catch (const std::runtime_error &error) {
  Json answer("error");
  if (type == SOUP_WEBSOCKET_DATA_BINARY) answer.text("request", "picture");
  send(answer.text("message", error.what()));
}

void Session::on_text(const std::string &text) {
  if (text.size() > kLongestMessage) throw BadMessage("The message is too long.");
  on_message_(this, Message(text));
}

void Session::on_picture(GBytes *bytes) {
  picture.reset();
  picture = std::make_shared<Picture>(bytes);
  send(Json("done").text("request", "picture"));
}

}  // namespace studio
