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
constexpr guint kEndOfFileMilliseconds = 5000;

// Nobody waits for an answer to the goodbye.
void refuse(SoupWebsocketConnection *websocket, const ConnectionPtr &connection) {
  connection->is_websocket = false;
  soup_websocket_connection_close(websocket, SOUP_WEBSOCKET_CLOSE_POLICY_VIOLATION, "too many viewers");
}

}  // namespace

Studio::Studio(const VideoOptions &video, const SourceOptions &source, const NetworkOptions &network,
               const RecordingOptions &recordings, OnEnded on_ended)
    : network_(network),
      recordings_(recordings),
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
    if (self->recording_) self->recording_->look_after();
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
  hello.truth("steers", network_.token.empty()).truth("records", !recordings_.directory.empty());
  if (!network_.stun.empty()) hello.text("stun", network_.stun);
  sessions_.back()->send(hello);
  tell_soon();
}

void Studio::remove(Session *session) {
  std::erase_if(sessions_, [session](const auto &each) { return each.get() == session; });
  end_if_all_are_gone();
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
  if (type == "enqueue" || type == "cut" || type == "again") return show_scene(session, message);
  if (type == "record") return record(session, message.truth("on"));
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

void Studio::show_scene(Session *session, const Message &message) {
  const std::string type = message.type();
  guint clip = 0;
  if (type == "again") {
    clip = source_.show_again(message);
  } else {
    const bool with_picture = message.truth("picture");
    if (with_picture && !session->picture) throw BadMessage("There is no picture for the clip.");
    const Scene scene = {
        message.text("prompt", kLongestPrompt), with_picture ? session->picture : nullptr, {}};
    clip = type == "cut" ? source_.cut_to(scene) : source_.enqueue(scene);
    if (with_picture) session->picture.reset();
  }
  session->send(Json("done").text("request", type).integer("clip", clip));
  tell_soon();
}

void Studio::record(Session *session, bool on) {
  if (on == bool(recording_)) throw BadMessage(on ? "A recording runs already." : "No recording runs.");
  if (on)
    recording_ = Recording::create(&pipeline_, recordings_,
                                   [this](const std::string &reason) { on_recorded(reason); });
  else
    recording_->stop();
  session->send(Json("done").text("request", "record").truth("on", on).text("name", recording_->name()));
  tell_soon();
}

void Studio::on_recorded(const std::string &reason) {
  const std::shared_ptr<Recording> recording = std::exchange(recording_, nullptr);
  Json news("recorded");
  news.text("name", recording->name()).integer("bytes", recording->bytes()).text("reason", reason);
  for (const auto &session : sessions_)
    if (session->may_steer) session->send(news);
  end_if_all_are_gone();
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
  if (recording_ && recording_->has_branch(branch)) return on_recorded(error);
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
  if (recording_)
    state.object("recording",
                 Json().integer("seconds", recording_->seconds()).integer("bytes", recording_->bytes()));
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
  if (closing_) return;
  if (recording_) recording_->stop();
  closing_ = g_timeout_add(recording_ ? kEndOfFileMilliseconds : kGoodbyeMilliseconds, late, this);
  for (const auto &session : sessions_) session->close(SOUP_WEBSOCKET_CLOSE_GOING_AWAY, "the studio closes");
  end_if_all_are_gone();
}

void Studio::end_if_all_are_gone() {
  if (closing_ && sessions_.empty() && !recording_) end("");
}

void Studio::end(const std::string &error) {
  if (on_ended_) std::exchange(on_ended_, nullptr)(error);
}

}  // namespace studio
