// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline.h"

#include <gst/video/video.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <stdexcept>

namespace studio {
namespace {

// Encoders for a conversation: no frames are held back or reordered, and key frames come when a viewer needs
// one.
constexpr std::array kCodecs = {
    Codec{
        "vp8",
        "vp8enc name=vp8-encoder deadline=1 cpu-used=8 end-usage=cbr buffer-size=500 buffer-initial-size=300 "
        "buffer-optimal-size=400 keyframe-max-dist=600",
        "rtpvp8pay picture-id-mode=15-bit",
        "application/x-rtp,media=video,encoding-name=VP8,payload=96,clock-rate=90000", "target-bitrate", 1},
    Codec{"h264",
          "x264enc name=h264-encoder tune=zerolatency speed-preset=superfast key-int-max=600 ! "
          "video/x-h264,profile=constrained-baseline,stream-format=byte-stream",
          "rtph264pay config-interval=-1 aggregate-mode=zero-latency",
          "application/x-rtp,media=video,encoding-name=H264,payload=97,clock-rate=90000,"
          "packetization-mode=(string)1,profile-level-id=(string)42e01f",
          "bitrate", 1000},
};

// What the branches of viewers and recordings are made of, and what webrtcbin looks for itself when it is too
// late for a clear message.
constexpr std::array kNeeded = {"webrtcbin", "nicesrc",    "dtlssrtpenc", "srtpenc",    "rtpbin",
                                "rtpvp8pay", "rtph264pay", "h264parse",   "matroskamux"};

constexpr double kBitsPerPixel = 0.2;
constexpr int kLeastBits = 500000;

std::string launch_line(const VideoOptions &options) {
  std::string caps = "video/x-raw";
  if (options.width) caps += ",width=" + std::to_string(options.width);
  if (options.height) caps += ",height=" + std::to_string(options.height);
  if (options.fps) caps += ",framerate=" + std::to_string(options.fps) + "/1";
  std::string line = "wansrc name=source ! " + caps + " ! tee name=raw";
  for (const Codec &codec : kCodecs) {
    const std::string name = codec.name;
    line += " raw. ! valve drop=true name=" + name + "-valve ! queue leaky=downstream max-size-buffers=2 ! " +
            codec.encoder + " ! tee allow-not-linked=true name=" + name;
  }
  return line;
}

void check_plugins() {
  for (const char *name : kNeeded) {
    g_autoptr(GstElementFactory) factory = gst_element_factory_find(name);
    if (!factory) throw std::runtime_error(std::string("GStreamer has no element \"") + name + "\".");
  }
}

// A query that keeps its place among the frames, as one for allocation does, would wait in the branch's
// queue, and all viewers with it, for as long as that viewer is not connected.
GstPadProbeReturn refuse_serialized(GstPad *, GstPadProbeInfo *info, gpointer) {
  const GstQueryType type = GST_QUERY_TYPE(gst_pad_probe_info_get_query(info));
  return gst_query_type_get_flags(type) & GST_QUERY_TYPE_SERIALIZED ? GST_PAD_PROBE_DROP : GST_PAD_PROBE_OK;
}

int bitrate_for(GstPad *raw) {
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(raw);
  GstVideoInfo info;
  if (!caps || !gst_video_info_from_caps(&info, caps) || !info.fps_n) return kLeastBits;
  const double bits = kBitsPerPixel * info.width * info.height * info.fps_n / info.fps_d;
  return std::max(int(bits), kLeastBits);
}

}  // namespace

Pipeline::Pipeline(const VideoOptions &options, PipelineEvents events) : events_(std::move(events)) {
  check_plugins();
  g_autoptr(GError) error = nullptr;
  pipeline_ =
      gst_parse_launch_full(launch_line(options).c_str(), nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!pipeline_) throw std::runtime_error(error->message);
  source_ = find("source");
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline_);
  const auto on_message = [](GstBus *, GstMessage *message, gpointer self) -> gboolean {
    static_cast<Pipeline *>(self)->on_message(message);
    return G_SOURCE_CONTINUE;
  };
  watch_ = gst_bus_add_watch(bus, on_message, this);
  const auto at_once = [](GstBus *, GstMessage *message, gpointer self) {
    return static_cast<Pipeline *>(self)->on_message_at_once(message);
  };
  gst_bus_set_sync_handler(bus, at_once, this, nullptr);
}

Pipeline::~Pipeline() {
  g_clear_handle_id(&watch_, g_source_remove);
  if (pipeline_) gst_element_set_state(pipeline_, GST_STATE_NULL);
  gst_clear_object(&source_);
  gst_clear_object(&pipeline_);
}

void Pipeline::play() {
  if (gst_element_set_state(pipeline_, GST_STATE_PLAYING) != GST_STATE_CHANGE_FAILURE) return;
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline_);
  g_autoptr(GstMessage) message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  g_autoptr(GError) error = nullptr;
  if (message) gst_message_parse_error(message, &error, nullptr);
  throw std::runtime_error(error ? error->message : "The pipeline does not start.");
}

const Codec *Pipeline::find_codec(const std::string &name) {
  const auto found =
      std::find_if(kCodecs.begin(), kCodecs.end(), [&](auto &codec) { return name == codec.name; });
  return found == kCodecs.end() ? nullptr : &*found;
}

GstElement *Pipeline::find(const std::string &name) const {
  return gst_bin_get_by_name(GST_BIN(pipeline_), name.c_str());
}

// The encoder's input. While it is closed the encoder costs nothing.
void Pipeline::open(const Codec &codec, bool open) {
  g_autoptr(GstElement) valve = find(codec.name + std::string("-valve"));
  g_autoptr(GstElement) encoder = find(codec.name + std::string("-encoder"));
  g_autoptr(GstPad) raw = gst_element_get_static_pad(valve, "sink");
  if (open) g_object_set(encoder, codec.bitrate_property, bitrate_for(raw) / codec.bitrate_unit, nullptr);
  g_object_set(valve, "drop", gboolean{!open}, nullptr);
}

void Pipeline::attach(const Codec &codec, GstElement *branch) {
  g_autoptr(GstElement) tee = find(codec.name);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(branch, "sink");
  gst_bin_add(GST_BIN(pipeline_), branch);
  branches_.push_back(branch);
  gst_element_sync_state_with_parent(branch);
  if (tee->numsrcpads == 0) open(codec, true);
  g_autoptr(GstPad) src = gst_element_request_pad_simple(tee, "src_%u");
  gst_pad_add_probe(sink, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, refuse_serialized, nullptr, nullptr);
  gst_pad_link(src, sink);
}

// The branch begins with a queue that never blocks, so the tee is never waited for.
void Pipeline::unlink(const Codec &codec, GstElement *branch) {
  g_autoptr(GstElement) tee = find(codec.name);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(branch, "sink");
  g_autoptr(GstPad) src = gst_pad_get_peer(sink);
  gst_element_release_request_pad(tee, src);
  if (tee->numsrcpads == 0) open(codec, false);
}

void Pipeline::remove(GstElement *branch) {
  gst_element_set_state(branch, GST_STATE_NULL);
  std::erase(branches_, branch);
  gst_bin_remove(GST_BIN(pipeline_), branch);
}

void Pipeline::force_key_frame(const Codec &codec) {
  g_autoptr(GstElement) tee = find(codec.name);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(tee, "sink");
  gst_pad_push_event(sink, gst_video_event_new_upstream_force_key_unit(GST_CLOCK_TIME_NONE, TRUE, 0));
}

bool Pipeline::is_branch(GstObject *object, GstElement **branch) const {
  const auto found = std::find_if(branches_.begin(), branches_.end(), [object](GstElement *branch) {
    return object == GST_OBJECT(branch) || gst_object_has_as_ancestor(object, GST_OBJECT(branch));
  });
  if (found == branches_.end()) return false;
  *branch = *found;
  return true;
}

void Pipeline::on_error(GstMessage *message) {
  g_autoptr(GError) error = nullptr;
  g_autofree char *debug = nullptr;
  gst_message_parse_error(message, &error, &debug);
  GST_WARNING("%s: %s (%s)", GST_MESSAGE_SRC_NAME(message), error->message, debug);
  GstElement *branch = nullptr;
  if (is_branch(GST_MESSAGE_SRC(message), &branch))
    events_.branch_failed(branch, error->message);
  else
    events_.failed(error->message);
}

// In the thread that posts. What is posted in the main loop's is the answer to what that asks for: not what
// happens meanwhile.
GstBusSyncReply Pipeline::on_message_at_once(GstMessage *message) {
  const bool is_answer = GST_MESSAGE_TYPE(message) == GST_MESSAGE_WARNING &&
                         GST_MESSAGE_SRC(message) == GST_OBJECT(source_) &&
                         g_main_context_is_owner(g_main_context_default());
  if (!is_answer) return GST_BUS_PASS;
  g_autoptr(GError) warning = nullptr;
  gst_message_parse_warning(message, &warning, nullptr);
  events_.refused(warning->message);
  gst_message_unref(message);
  return GST_BUS_DROP;
}

void Pipeline::on_message(GstMessage *message) {
  g_autoptr(GError) warning = nullptr;
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ERROR:
      on_error(message);
      break;
    case GST_MESSAGE_WARNING:
      gst_message_parse_warning(message, &warning, nullptr);
      std::fprintf(stderr, "warning: %s\n", warning->message);
      break;
    case GST_MESSAGE_EOS:
      events_.failed("The stream has ended.");
      break;
    case GST_MESSAGE_LATENCY:
      gst_bin_recalculate_latency(GST_BIN(pipeline_));
      break;
    case GST_MESSAGE_ELEMENT:
      if (GST_MESSAGE_SRC(message) == GST_OBJECT(source_))
        events_.source_message(gst_message_get_structure(message));
      break;
    default:
      break;
  }
}

}  // namespace studio
