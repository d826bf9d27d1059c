// SPDX-License-Identifier: LGPL-2.1-or-later
#include "viewer.h"

#include <stdexcept>

#include "main_loop.h"
#include "negotiation.h"

namespace studio {
namespace {

// What a thread of webrtcbin's holds of a viewer, who may be gone when it is used.
using Handle = std::weak_ptr<Viewer>;

GstPromise *promise(GstPromiseChangeFunc callback, const Handle &viewer) {
  return gst_promise_new_with_change_func(callback, new Handle(viewer),
                                          [](gpointer handle) { delete static_cast<Handle *>(handle); });
}

std::string error_of(GstPromise *promise) {
  if (gst_promise_wait(promise) != GST_PROMISE_RESULT_REPLIED) return "interrupted";
  const GstStructure *reply = gst_promise_get_reply(promise);
  g_autoptr(GError) error = nullptr;
  if (reply) gst_structure_get(reply, "error", G_TYPE_ERROR, &error, nullptr);
  return error ? error->message : "";
}

Description offer_of(GstPromise *promise) {
  GstWebRTCSessionDescription *offer = nullptr;
  gst_structure_get(gst_promise_get_reply(promise), "offer", GST_TYPE_WEBRTC_SESSION_DESCRIPTION, &offer,
                    nullptr);
  return {offer, gst_webrtc_session_description_free};
}

std::string branch_line(const Codec &codec) {
  // Frames wait here until the connection is made, and are dropped if it cannot take them.
  return std::string("queue name=queue leaky=downstream max-size-buffers=8 ! ") + codec.payloader + " ! " +
         codec.rtp_caps + " ! webrtcbin name=webrtc bundle-policy=max-bundle";
}

}  // namespace

std::shared_ptr<Viewer> Viewer::create(Pipeline *pipeline, const Codec &codec, const NetworkOptions &network,
                                       Send send) {
  const std::shared_ptr<Viewer> viewer(new Viewer(pipeline, codec, std::move(send)));
  viewer->start(network);
  return viewer;
}

void Viewer::start(const NetworkOptions &network) {
  g_autoptr(GError) error = nullptr;
  branch_ = gst_parse_bin_from_description_full(branch_line(codec_).c_str(), FALSE, nullptr,
                                                GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!branch_) throw std::runtime_error(error->message);
  webrtc_ = gst_bin_get_by_name(GST_BIN(branch_), "webrtc");
  count_++;
  g_object_weak_ref(G_OBJECT(webrtc_), gone, nullptr);
  g_autoptr(GstElement) queue = gst_bin_get_by_name(GST_BIN(branch_), "queue");
  g_autoptr(GstPad) sink = gst_element_get_static_pad(queue, "sink");
  gst_element_add_pad(branch_, gst_ghost_pad_new("sink", sink));
  set_up_transceiver();
  if (!network.stun.empty()) g_object_set(webrtc_, "stun-server", network.stun.c_str(), nullptr);
  set_up_ice(network.address);
  connect_signals(queue);
  pipeline_->attach(codec_, branch_);
  is_attached_ = true;
}

// Only from the address that the page is served at, and without asking a router to open ports (UPnP).
void Viewer::set_up_ice(const std::string &address) {
  g_autoptr(GObject) ice = nullptr, agent = nullptr;
  g_object_get(webrtc_, "ice-agent", &ice, nullptr);
  g_object_get(ice, "agent", &agent, nullptr);
  g_object_set(agent, "upnp", FALSE, nullptr);
  gboolean added = FALSE;
  if (!address.empty()) g_signal_emit_by_name(ice, "add-local-ip-address", address.c_str(), &added);
}

// Packets that are lost on the way are sent again.
void Viewer::set_up_transceiver() {
  g_autoptr(GstWebRTCRTPTransceiver) transceiver = nullptr;
  g_signal_emit_by_name(webrtc_, "get-transceiver", 0, &transceiver);
  g_object_set(transceiver, "direction", GST_WEBRTC_RTP_TRANSCEIVER_DIRECTION_SENDONLY, "do-nack", TRUE,
               nullptr);
}

void Viewer::connect_signals(GstElement *queue) {
  const Handle handle = weak_from_this();
  const auto on_negotiation_needed = +[](GstElement *, Handle *viewer) {
    run_in_main_loop<Viewer>(*viewer, [](Viewer &viewer) { viewer.make_offer(); });
  };
  const auto on_candidate = +[](GstElement *, guint, const char *candidate, Handle *viewer) {
    run_in_main_loop<Viewer>(*viewer, [text = std::string(candidate)](Viewer &viewer) {
      viewer.send_(Json("candidate").text("candidate", text));
    });
  };
  const auto on_state = +[](GstElement *, GParamSpec *, Handle *viewer) {
    run_in_main_loop<Viewer>(*viewer, [](Viewer &viewer) { viewer.on_connection_state(); });
  };
  // A frame is about to be dropped, so the ones after it would be decoded to something wrong.
  const auto on_overrun = +[](GstElement *, Handle *viewer) {
    run_in_main_loop<Viewer>(*viewer, [](Viewer &viewer) { viewer.on_overrun(); });
  };
  connect(webrtc_, "on-negotiation-needed", on_negotiation_needed, handle);
  connect(webrtc_, "on-ice-candidate", on_candidate, handle);
  connect(webrtc_, "notify::connection-state", on_state, handle);
  connect(queue, "overrun", on_overrun, handle);
}

// What webrtcbin has still to do when it is stopped holds it for ever, so that is waited for.
void Viewer::finish_tasks() const {
  g_autoptr(GstPromise) done = gst_promise_new();
  g_signal_emit_by_name(webrtc_, "get-stats", nullptr, done);
  gst_promise_wait(done);
}

Viewer::~Viewer() {
  if (is_attached_) {
    finish_tasks();
    pipeline_->unlink(codec_, branch_);
    pipeline_->remove(branch_);
  } else {
    gst_clear_object(&branch_);
  }
  gst_clear_object(&webrtc_);
}

void Viewer::make_offer() {
  if (negotiation_ != Negotiation::NotBegun) return;
  negotiation_ = Negotiation::Offering;
  const auto on_offer = [](GstPromise *promise, gpointer data) {
    const std::string error = error_of(promise);
    const Description offer = error.empty() ? offer_of(promise) : nullptr;
    gst_promise_unref(promise);
    run_in_main_loop<Viewer>(*static_cast<Handle *>(data),
                             [=](Viewer &viewer) { viewer.on_offer(offer, error); });
  };
  g_signal_emit_by_name(webrtc_, "create-offer", nullptr, promise(on_offer, weak_from_this()));
}

void Viewer::on_offer(const Description &offer, const std::string &error) {
  if (!offer) {
    send_(Json("error").text("message", "No video can be offered: " + error));
    return;
  }
  g_autofree char *text = gst_sdp_message_as_text(offer->sdp);
  g_signal_emit_by_name(webrtc_, "set-local-description", offer.get(), nullptr);
  negotiation_ = Negotiation::Offered;
  send_(Json("offer").text("codec", codec_.name).text("sdp", text));
}

void Viewer::take_answer(const std::string &sdp) {
  if (negotiation_ != Negotiation::Offered) throw BadMessage("No offer waits for an answer.");
  const Description answer = parse_answer(sdp);
  negotiation_ = Negotiation::Answered;
  const auto on_set = [](GstPromise *promise, gpointer data) {
    const std::string error = error_of(promise);
    gst_promise_unref(promise);
    if (error.empty()) return;
    run_in_main_loop<Viewer>(*static_cast<Handle *>(data), [=](Viewer &viewer) {
      viewer.send_(Json("error").text("message", "The answer was not accepted: " + error));
    });
  };
  g_signal_emit_by_name(webrtc_, "set-remote-description", answer.get(), promise(on_set, weak_from_this()));
}

void Viewer::take_candidate(const std::string &candidate) {
  check_candidate(candidate);
  // A name that hides the browser's address and would have to be looked up by multicast. It is not needed:
  // the browser sends to the addresses that it got from here, and is answered where it sends from.
  if (candidate.find(".local ") != std::string::npos) return;
  g_signal_emit_by_name(webrtc_, "add-ice-candidate", 0, candidate.c_str());
}

void Viewer::on_connection_state() {
  GstWebRTCPeerConnectionState state;
  g_object_get(webrtc_, "connection-state", &state, nullptr);
  connected_ = state == GST_WEBRTC_PEER_CONNECTION_STATE_CONNECTED;
  was_connected_ |= connected_;
  if (connected_) pipeline_->force_key_frame(codec_);
  if (state == GST_WEBRTC_PEER_CONNECTION_STATE_FAILED)
    send_(Json("error").text("message", "The video connection failed."));
}

void Viewer::on_overrun() {
  if (connected_) pipeline_->force_key_frame(codec_);
}

}  // namespace studio
