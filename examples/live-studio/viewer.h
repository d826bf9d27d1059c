// One viewer's video: a branch of the pipeline that ends in a webrtcbin, and its negotiation with the
// browser. The program makes the offer, the page answers.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>
#include <gst/webrtc/webrtc.h>

#include <atomic>
#include <memory>
#include <string>

#include "json.h"
#include "pipeline.h"

namespace studio {

struct NetworkOptions {
  std::string address;  // to send video from; empty: all of the machine's
  std::string stun;     // stun://host:port; empty: none
  std::string token;    // that pages steer with; empty: all may
};

/** All its methods are for the main loop's thread. webrtcbin calls back from threads of its own, which only
 * hand on what they got. */
class Viewer : public std::enable_shared_from_this<Viewer> {
 public:
  static std::shared_ptr<Viewer> create(Pipeline *pipeline, const Codec &codec, const NetworkOptions &network,
                                        Send send);
  ~Viewer();
  Viewer(const Viewer &) = delete;
  Viewer &operator=(const Viewer &) = delete;

  /** Viewers, with those of whom something is still there. */
  static int count() { return count_; }
  /** Microseconds since video was asked for. */
  gint64 age() const { return g_get_monotonic_time() - begun_; }
  bool was_connected() const { return was_connected_; }

  void take_answer(const std::string &sdp);
  void take_candidate(const std::string &candidate);
  bool has_branch(const GstElement *branch) const { return branch == branch_; }

 private:
  Viewer(Pipeline *pipeline, const Codec &codec, Send send)
      : pipeline_(pipeline), codec_(codec), send_(std::move(send)) {}
  void start(const NetworkOptions &network);
  static void gone(gpointer, GObject *) { --count_; }
  void set_up_ice(const std::string &address);
  void set_up_transceiver();
  void connect_signals(GstElement *queue);
  void finish_tasks() const;
  void make_offer();
  void on_offer(const std::shared_ptr<GstWebRTCSessionDescription> &offer, const std::string &error);
  void on_connection_state();
  void on_overrun();

  enum class Negotiation { NotBegun, Offering, Offered, Answered };

  Pipeline *pipeline_;
  const Codec &codec_;
  Send send_;
  GstElement *branch_ = nullptr, *webrtc_ = nullptr;
  Negotiation negotiation_ = Negotiation::NotBegun;
  bool is_attached_ = false, connected_ = false, was_connected_ = false;
  gint64 begun_ = g_get_monotonic_time();

  static inline std::atomic<int> count_ = 0;
};

}  // namespace studio
