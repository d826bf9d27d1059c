// Every element of the installed GStreamer that takes raw video, behind wansrc and behind videotestsrc.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

constexpr GstClockTime kPatience = 10 * GST_SECOND;  // some wait for ever, whatever is before them

// What others leak is not ours, and the leaks tracer of tests/element may stumble over it.
[[maybe_unused]] const bool kNoTracer = (g_unsetenv("GST_TRACERS"), true);

// Those that are not tried, and why.
const std::set<std::string> kExcluded = {
    // draw on the terminal
    "aasink",
    "cacasink",
    // open a window where there is a display, or need a device or a peer
    "autovideosink",
    "clutterautovideosink",
    "decklinkvideosink",
    "dfbvideosink",
    "fbdevsink",
    "fpsdisplaysink",
    "glimagesink",
    "glimagesinkelement",
    "gtkglsink",
    "gtksink",
    "gtkwaylandsink",
    "kmssink",
    "ndisink",
    "qml6glsink",
    "qmlglsink",
    "rfbsink",
    "sdlvideosink",
    "shmsink",
    "v4l2sink",
    "vulkansink",
    "waylandsink",
    "viewfinderbin",
    "ximagesink",
    "xvimagesink",
    // cannot be stopped while it waits for its other pad, behind whatever source
    "shapewipe",
    // crash or hang in GStreamer 1.26, behind whatever source
    "debugqroverlay",
    "qroverlay",
};

bool takes_raw_video(GstElementFactory *factory) {
  for (const GList *item = gst_element_factory_get_static_pad_templates(factory); item; item = item->next) {
    auto *pad_template = static_cast<GstStaticPadTemplate *>(item->data);
    if (pad_template->direction != GST_PAD_SINK || pad_template->presence == GST_PAD_SOMETIMES) continue;
    const Ptr<GstCaps> caps(gst_static_pad_template_get_caps(pad_template));
    const Ptr<GstCaps> raw(gst_caps_new_empty_simple("video/x-raw"));
    if (!gst_caps_is_any(caps.get()) && gst_caps_can_intersect(caps.get(), raw.get())) return true;
  }
  return false;
}

std::vector<std::string> raw_video_elements() {
  std::vector<std::string> names;
  GList *features = gst_registry_get_feature_list(gst_registry_get(), GST_TYPE_ELEMENT_FACTORY);
  for (const GList *item = features; item; item = item->next) {
    const std::string name = GST_OBJECT_NAME(item->data);
    if (takes_raw_video(GST_ELEMENT_FACTORY(item->data)) && !kExcluded.contains(name)) names.push_back(name);
  }
  gst_plugin_feature_list_free(features);
  std::sort(names.begin(), names.end());
  return names;
}

void drain(GstPad *pad, GstElement *pipeline) {
  GstElement *sink = gst_element_factory_make("fakesink", nullptr);
  g_object_set(sink, "sync", FALSE, nullptr);
  gst_bin_add(GST_BIN(pipeline), sink);
  gst_element_sync_state_with_parent(sink);
  gst_pad_link(pad, Ptr<GstPad>(gst_element_get_static_pad(sink, "sink")).get());
}

struct Outcome {
  std::string text;   // how it ended
  Ptr<GstCaps> caps;  // of the source; none if it did not come to that
};

// A source and the element behind it, played to the end. Whatever else comes out of the element is dropped.
Outcome outcome_behind(const std::string &source, const std::string &name) {
  Pipeline pipeline(source + " ! identity name=seen ! fakesink name=removed");
  GstBin *bin = GST_BIN(pipeline.get());
  const Ptr<GstElement> seen = pipeline.find("seen"), removed = pipeline.find("removed");
  gst_bin_remove(bin, removed.get());
  gst_element_set_state(removed.get(), GST_STATE_NULL);
  GstElement *element = gst_element_factory_make(name.c_str(), nullptr);
  if (!element) return {"cannot be made", nullptr};
  gst_bin_add(bin, element);
  g_signal_connect(element, "pad-added", G_CALLBACK(+[](GstElement *, GstPad *pad, GstElement *pipeline) {
                     if (GST_PAD_IS_SRC(pad)) drain(pad, pipeline);
                   }),
                   pipeline.get());
  if (!gst_element_link(seen.get(), element)) return {"cannot be linked", nullptr};
  gst_element_foreach_src_pad(
      element,
      [](GstElement *, GstPad *pad, gpointer pipeline) -> gboolean {
        drain(pad, GST_ELEMENT(pipeline));
        return TRUE;
      },
      pipeline.get());
  Outcome outcome;
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
  const Ptr<GstMessage> message(
      gst_bus_timed_pop_filtered(bus.get(), kPatience, GstMessageType(GST_MESSAGE_EOS | GST_MESSAGE_ERROR)));
  outcome.caps.reset(
      gst_pad_get_current_caps(Ptr<GstPad>(gst_element_get_static_pad(seen.get(), "sink")).get()));
  if (message && GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_ERROR) {
    GError *error = nullptr;
    gst_message_parse_error(message.get(), &error, nullptr);
    outcome.text =
        std::string("error ") + g_quark_to_string(error->domain) + " " + std::to_string(error->code);
    g_error_free(error);
  } else {
    outcome.text = message ? "end of stream" : "hangs";
  }
  return outcome;
}

std::string caps_text(const GstCaps *caps) {
  gchar *text = gst_caps_to_string(caps);
  const std::string result = text;
  g_free(text);
  return result;
}

// videotestsrc of the caps that wansrc has come to, or of all that it offers.
std::string reference(const GstCaps *caps) {
  return "videotestsrc num-buffers=9 ! capsfilter caps=\"" +
         (caps ? caps_text(caps)
               : "video/x-raw,format={NV12,I420,RGB,RGBx,BGRx,RGBA,BGRA},pixel-aspect-ratio=1/"
                 "1,interlace-mode=progressive") +
         "\"";
}

TEST(Neighbours, ThatTakeRawVideoTakeWansrcsAsAnyOther) {
  // What others warn of is not ours.
  g_log_set_always_fatal(GLogLevelFlags(G_LOG_FATAL_MASK));
  const std::vector<std::string> names = raw_video_elements();
  EXPECT_GT(names.size(), 20u);
  std::atomic<size_t> next = 0;
  std::mutex mutex;
  const auto work = [&] {
    for (size_t i = next++; i < names.size(); i = next++) {
      const Outcome ours = outcome_behind(stub_source(""), names[i]);
      const Outcome theirs = outcome_behind(reference(ours.caps.get()), names[i]);
      const std::lock_guard lock(mutex);
      EXPECT_EQ(ours.text, theirs.text)
          << names[i] << " with " << (ours.caps ? caps_text(ours.caps.get()) : "no caps");
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) threads.emplace_back(work);
  for (std::thread &thread : threads) thread.join();
}

}  // namespace
}  // namespace wan::test
