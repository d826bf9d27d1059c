// SPDX-License-Identifier: LGPL-2.1-or-later
#include "session.h"

namespace studio {
namespace {

constexpr gsize kLongestMessage = 32 * 1024;      // answered by an error
constexpr guint64 kLargestMessage = 1024 * 1024;  // ends the connection
constexpr guint kPingSeconds = 5;
constexpr gint64 kSilence = 20 * G_USEC_PER_SEC;
constexpr gint64 kUnread = 5 * G_USEC_PER_SEC;
constexpr gint64 kUnconnected = 60 * G_USEC_PER_SEC;
constexpr int kMostRefused = 4096;

}  // namespace

Session::Session(SoupWebsocketConnection *websocket, ConnectionPtr connection, OnMessage on_message,
                 OnClosed on_closed)
    : websocket_(SOUP_WEBSOCKET_CONNECTION(g_object_ref(websocket))),
      connection_(std::move(connection)),
      on_message_(std::move(on_message)),
      on_closed_(std::move(on_closed)) {
  const auto message = +[](SoupWebsocketConnection *, gint type, GBytes *bytes, Session *self) {
    self->heard_ = g_get_monotonic_time();
    self->connection_->was_whole();
    if (self->is_allowed()) self->on_message(type, bytes);
  };
  const auto pong = +[](SoupWebsocketConnection *, GBytes *, Session *self) {
    self->heard_ = g_get_monotonic_time();
    self->connection_->was_whole();
  };
  const auto closed = +[](SoupWebsocketConnection *, Session *self) { self->on_closed_(self); };
  g_signal_connect(websocket, "message", G_CALLBACK(message), this);
  g_signal_connect(websocket, "pong", G_CALLBACK(pong), this);
  g_signal_connect(websocket, "closed", G_CALLBACK(closed), this);
  soup_websocket_connection_set_max_incoming_payload_size(websocket, kLargestMessage);
  soup_websocket_connection_set_keepalive_interval(websocket, kPingSeconds);
}

Session::~Session() {
  g_clear_handle_id(&running_, g_source_remove);
  g_signal_handlers_disconnect_by_data(websocket_, this);
  g_object_unref(websocket_);
}

void Session::send(const std::string &text) {
  if (soup_websocket_connection_get_state(websocket_) == SOUP_WEBSOCKET_STATE_OPEN)
    soup_websocket_connection_send_text(websocket_, text.c_str());
}

void Session::send_news(const std::string &text) {
  if (!connection_->is_congested()) send(text);
}

void Session::close(gushort code, const char *reason) {
  if (soup_websocket_connection_get_state(websocket_) == SOUP_WEBSOCKET_STATE_OPEN)
    soup_websocket_connection_close(websocket_, code, reason);
}

void Session::look_after() {
  const gint64 now = g_get_monotonic_time();
  if (!connection_->is_congested()) read_ = now;
  if (now - read_ > kUnread) return connection_->cut();
  if (now - heard_ > kSilence) close(SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "no answer to pings");
  if (!viewer || viewer->was_connected() || viewer->age() < kUnconnected) return;
  viewer.reset();
  send_error("The video was not taken for a minute.");
}

void Session::run_soon(std::function<void()> run) {
  const auto idle = [](gpointer self) -> gboolean {
    static_cast<Session *>(self)->running_ = 0;
    static_cast<Session *>(self)->run();
    return G_SOURCE_REMOVE;
  };
  run_ = std::move(run);
  if (!running_) running_ = g_idle_add(idle, this);
}

void Session::run() try { run_(); } catch (const std::runtime_error &error) {
  send_error(error.what());
}

void Session::check_may_steer() const {
  if (!may_steer)
    throw BadMessage("This page may watch only. The link to steer with is the program's to tell.");
}

void Session::count_watch() {
  if (!watches_.take_one()) throw BadMessage("Video is asked for too often. Wait a second.");
}

// Refusals are not answered one by one, or they would be as many.
bool Session::is_allowed() {
  if (messages_.take_one()) return true;
  if (complaints_.take_one()) send_error("Too many messages. Wait a second.");
  if (++refused_ > kMostRefused) close(SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "too many messages");
  return false;
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
  check_may_steer();
  picture.reset();
  picture = std::make_shared<Picture>(bytes);
  send(Json("done").text("request", "picture"));
}

}  // namespace studio
