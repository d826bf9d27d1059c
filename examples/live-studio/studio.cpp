// SPDX-License-Identifier: LGPL-2.1-or-later
#include "studio.h"

#include <algorithm>
#include <utility>

namespace studio {
namespace {

constexpr size_t kMostSessions = 32;
constexpr int kMostViewers = 2 * kMostSessions;  // with those that are not quite gone
constexpr guint kTellMilliseconds = 100;         // of news that come together, pages are told at once
constexpr guint kGoodbyeMilliseconds = 500;

// Nobody waits for an answer to the goodbye.
void refuse(SoupWebsocketConnection *websocket, const ConnectionPtr &connection) {
  connection->is_websocket = false;
  soup_websocket_connection_close(websocket, SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "too many viewers");
}

}  // namespace

Studio::Studio(const VideoOptions &video, const SourceOptions &source, const NetworkOptions &network,
               OnEnded on_ended)
    : network_(network),
      on_ended_(std::move(on_ended)),
      pipeline_(video,
                {[this](const GstStructure *news) {
                   source_.note(news);
                   tell_soon();
                 },
                 [this](GstElement *branch, const std::string &error) { on_branch_failed(branch, error); },
                 [this](const std::string &error) { end(error); },
                 [this](const std::string &reason) { source_.note_refusal(reason); }}),
      source_(pipeline_.source(), source) {
  const auto second = [](gpointer data) -> gboolean {
    auto *self = static_cast<Studio *>(data);
    for (const auto &session : self->sessions_) session->look_after();
    self->tell_soon();
    return G_SOURCE_CONTINUE;
  };
  second_ = g_timeout_add_seconds(1, second, this);
}

Studio::~Studio() {
  for (guint *id : {&second_, &telling_, &closing_}) g_clear_handle_id(id, g_source_remove);
}

void Studio::add(SoupWebsocketConnection *websocket, const ConnectionPtr &connection) {
  if (sessions_.size() >= kMostSessions) return refuse(websocket, connection);
  sessions_.push_back(std::make_unique<Session>(
      websocket, connection, [this](Session *session, const Message &message) { follow(session, message); },
      [this](Session *session) { remove(session); }));
  sessions_.back()->may_steer = network_.token.empty();
  Json hello("hello");
  hello.truth("steers", network_.token.empty());
  if (!network_.stun.empty()) hello.text("stun", network_.stun);
  sessions_.back()->send(hello);
  tell_soon();
}

void Studio::remove(Session *session) {
  std::erase_if(sessions_, [session](const auto &each) { return each.get() == session; });
  if (closing_ && sessions_.empty()) end("");
  tell_soon();
}

void Studio::follow(Session *session, const Message &message) {
  const std::string type = message.type();
  if (type == "watch") return watch(session, message);
  if (type == "answer" || type == "candidate") {
    if (!session->viewer) throw BadMessage("There is no video to negotiate.");
    if (type == "answer") return session->viewer->take_answer(message.text("sdp", 16 * 1024));
    return session->viewer->take_candidate(message.text("candidate", 500));
  }
  if (type == "steer") return let_steer(session, message.text("token", 64));
  session->check_may_steer();
  if (type == "enqueue") return enqueue(session, message);
  if (type == "set")
    source_.set(message);
  else if (type == "skip")
    source_.skip();
  else if (type == "clear")
    source_.clear();
  else
    throw BadMessage("There is no command \"" + type + "\".");
  session->send(Json("done").text("request", type));
  tell_soon();
}

void Studio::enqueue(Session *session, const Message &message) {
  const bool with_picture = message.truth("picture");
  if (with_picture && !session->picture) throw BadMessage("There is no picture for the clip.");
  const guint clip = source_.enqueue(message, with_picture ? session->picture : nullptr);
  if (with_picture) session->picture.reset();
  session->send(Json("done").text("request", "enqueue").integer("clip", clip));
  tell_soon();
}

// Compared without telling by the time it takes how much of it is right.
void Studio::let_steer(Session *session, const std::string &token) {
  const auto digest = [](const std::string &text) {
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, text.c_str(), -1);
    return std::string(sum);
  };
  if (digest(token) != digest(network_.token)) throw BadMessage("That is not the link to steer with.");
  session->may_steer = true;
  session->send(Json("done").text("request", "steer"));
}

// The first codec of the page's list that there is here.
void Studio::watch(Session *session, const Message &message) {
  for (const std::string &name : message.texts("codecs", 16)) {
    const Codec *codec = Pipeline::find_codec(name);
    if (!codec) continue;
    session->count_watch();
    session->viewer.reset();
    return session->run_soon([=, this] { show(session, *codec); });
  }
  throw BadMessage("None of these codecs can be had here.");
}

// Not before the main loop has done with the viewer's last one, so that what asks often does not heap them
// up.
void Studio::show(Session *session, const Codec &codec) {
  if (Viewer::count() >= kMostViewers || !has_room())
    throw BadMessage("There is no room for another viewer.");
  session->viewer =
      Viewer::create(&pipeline_, codec, network_, [session](const Json &json) { session->send(json); });
  tell_soon();
}

void Studio::on_branch_failed(GstElement *branch, const std::string &error) {
  for (const auto &session : sessions_) {
    if (!session->viewer || !session->viewer->has_branch(branch)) continue;
    session->viewer.reset();
    return session->send_error("The video connection failed: " + error);
  }
}

void Studio::tell_soon() {
  const auto tell = [](gpointer data) -> gboolean {
    auto *self = static_cast<Studio *>(data);
    self->telling_ = 0;
    self->tell();
    return G_SOURCE_REMOVE;
  };
  if (!telling_ && !sessions_.empty()) telling_ = g_timeout_add(kTellMilliseconds, tell, this);
}

void Studio::tell() {
  Json state("state");
  const auto viewers =
      std::count_if(sessions_.begin(), sessions_.end(), [](auto &each) { return bool(each->viewer); });
  state.integer("viewers", viewers);
  source_.describe(&state);
  const std::string text = state.to_string();
  for (const auto &session : sessions_) session->send_news(text);
}

void Studio::close() {
  const auto late = [](gpointer data) -> gboolean {
    auto *self = static_cast<Studio *>(data);
    self->closing_ = 0;
    self->end("");
    return G_SOURCE_REMOVE;
  };
  if (sessions_.empty()) return end("");
  closing_ = g_timeout_add(kGoodbyeMilliseconds, late, this);
  for (const auto &session : sessions_) session->close(SOUP_WEBSOCKET_CLOSE_GOING_AWAY, "the studio closes");
}

void Studio::end(const std::string &error) {
  if (on_ended_) std::exchange(on_ended_, nullptr)(error);
}

}  // namespace studio
