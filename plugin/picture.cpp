// SPDX-License-Identifier: LGPL-2.1-or-later
#include "picture.h"

#include <gst/base/gstbasesink.h>

#include <algorithm>
#include <cstring>
#include <mutex>

#include "values.h"

namespace wan {
namespace {

constexpr GstClockTime kPatience = 100 * GST_MSECOND;  // until `cancelled` is asked again

// Decoders of pictures know their orientation as a tag, which videoflip follows.
constexpr char kDecoder[] =
    "uridecodebin name=source ! videoflip video-direction=auto ! videoconvert ! "
    "video/x-raw,format=RGB ! fakesink name=sink sync=false enable-last-sample=true";

struct Unref {
  void operator()(gpointer object) const { gst_object_unref(object); }
  void operator()(GstSample *sample) const { gst_sample_unref(sample); }
  void operator()(GstMessage *message) const { gst_message_unref(message); }
  void operator()(GstCaps *caps) const { gst_caps_unref(caps); }
  void operator()(gchar *text) const { g_free(text); }
  void operator()(GError *error) const { g_error_free(error); }
};
template <typename T>
using Owned = std::unique_ptr<T, Unref>;

std::shared_ptr<const Picture> copy_pixels(GstSample *sample) {
  GstVideoInfo info;
  GstVideoFrame frame;
  const GstCaps *caps = gst_sample_get_caps(sample);
  if (!caps || !gst_video_info_from_caps(&info, caps) ||
      !gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ))
    return nullptr;
  auto picture = std::make_shared<Picture>(Picture{info.width, info.height, {}});
  const size_t row = size_t(info.width) * 3;
  picture->pixels.resize(row * size_t(info.height));
  const auto *from = static_cast<const uint8_t *>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0));
  for (int y = 0; y < info.height; ++y)
    memcpy(picture->pixels.data() + y * row, from + int64_t{y} * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0),
           row);
  gst_video_frame_unmap(&frame);
  return picture;
}

// A path becomes a URI; "~" is the home directory.
std::string uri_of(const std::string &location) {
  if (gst_uri_is_valid(location.c_str())) return location;
  const bool home = location == "~" || location.starts_with("~/");
  const std::string path = home ? g_get_home_dir() + location.substr(1) : location;
  const Owned<gchar> uri(gst_filename_to_uri(path.c_str(), nullptr));
  return uri ? uri.get() : "";
}

// A FIFO or a device may never end, and opening it may block for ever. What is not there says so itself.
bool is_special_file(const std::string &uri) {
  const Owned<gchar> path(g_filename_from_uri(uri.c_str(), nullptr, nullptr));
  return path && g_file_test(path.get(), G_FILE_TEST_EXISTS) &&
         !g_file_test(path.get(), GFileTest(G_FILE_TEST_IS_REGULAR | G_FILE_TEST_IS_DIR));
}

std::string error_text(GstMessage *message, WanStatus *status) {
  GError *error = nullptr;
  gst_message_parse_error(message, &error, nullptr);
  const Owned<GError> owned(error);
  if (g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND)) *status = WAN_NOT_FOUND;
  return utf8(error->message);
}

bool is_too_large(GstCaps *caps) {
  GstVideoInfo info;
  return gst_video_info_from_caps(&info, caps) && int64_t{info.width} * info.height > kMaxPicturePixels;
}

// Before memory for it is taken.
GstPadProbeReturn refuse_too_large(GstPad *pad, GstPadProbeInfo *probe, gpointer) {
  GstEvent *event = gst_pad_probe_info_get_event(probe);
  if (GST_EVENT_TYPE(event) != GST_EVENT_CAPS) return GST_PAD_PROBE_OK;
  GstCaps *caps;
  gst_event_parse_caps(event, &caps);
  if (!is_too_large(caps)) return GST_PAD_PROBE_OK;
  const Owned<GstElement> element(gst_pad_get_parent_element(pad));
  GST_ELEMENT_ERROR(element.get(), STREAM, DECODE, ("It has more than 2^28 pixels."), (nullptr));
  return GST_PAD_PROBE_DROP;
}

bool is_unparsed_jpeg(const GstCaps *caps) {
  const GstStructure *structure = gst_caps_get_structure(caps, 0);
  gboolean parsed = FALSE;
  gst_structure_get_boolean(structure, "parsed", &parsed);
  return gst_structure_has_name(structure, "image/jpeg") && !parsed;
}

G_GNUC_BEGIN_IGNORE_DEPRECATIONS
void append_factory(GValueArray *array, GstElementFactory *factory) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, G_TYPE_OBJECT);
  g_value_set_object(&value, factory);
  g_value_array_append(array, &value);
  g_value_unset(&value);
}

// As uridecodebin chooses by itself, but a JPEG goes through jpegparse, if that is installed: of all elements
// it alone reads how a camera was held.
GValueArray *choose_factories(GstElement *, GstPad *, GstCaps *caps, gpointer) {
  GValueArray *array = g_value_array_new(0);
  if (is_unparsed_jpeg(caps))
    if (GstElementFactory *parser = gst_element_factory_find("jpegparse")) {
      append_factory(array, parser);
      gst_object_unref(parser);
    }
  GList *all = gst_element_factory_list_get_elements(GST_ELEMENT_FACTORY_TYPE_DECODABLE, GST_RANK_MARGINAL);
  GList *fitting = gst_element_factory_list_filter(all, caps, GST_PAD_SINK, gst_caps_is_fixed(caps));
  for (GList *item = fitting; item; item = item->next) append_factory(array, GST_ELEMENT_FACTORY(item->data));
  gst_plugin_feature_list_free(fitting);
  gst_plugin_feature_list_free(all);
  return array;
}
G_GNUC_END_IGNORE_DEPRECATIONS

void add_size_limit(GstElement *pipeline) {
  const Owned<GstElement> sink(gst_bin_get_by_name(GST_BIN(pipeline), "sink"));
  const Owned<GstPad> pad(gst_element_get_static_pad(sink.get(), "sink"));
  gst_pad_add_probe(pad.get(), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, refuse_too_large, nullptr, nullptr);
}

std::string no_picture(const std::string &location, const std::string &why) {
  return "The picture " + utf8(location) + " cannot be read: " + why;
}

// The decoder's first frame, when it has prerolled.
std::shared_ptr<const Picture> first_frame(GstElement *pipeline) {
  const Owned<GstElement> sink(gst_bin_get_by_name(GST_BIN(pipeline), "sink"));
  const Owned<GstSample> sample(gst_base_sink_get_last_sample(GST_BASE_SINK(sink.get())));
  return sample ? copy_pixels(sample.get()) : nullptr;
}

std::shared_ptr<const Picture> preroll(GstElement *pipeline, const std::string &location,
                                       const std::function<bool()> &cancelled, WanStatus *status,
                                       std::string *reason) {
  const Owned<GstBus> bus(gst_element_get_bus(pipeline));
  if (gst_element_set_state(pipeline, GST_STATE_PAUSED) == GST_STATE_CHANGE_NO_PREROLL) {
    *reason = no_picture(location, "it is a live source: link it to image_sink or last_image_sink.");
    return nullptr;
  }
  const auto wanted = GstMessageType(GST_MESSAGE_ASYNC_DONE | GST_MESSAGE_ERROR | GST_MESSAGE_EOS);
  Owned<GstMessage> message;
  while (!message) {
    if (cancelled()) {
      *status = WAN_CANCELLED;
      return nullptr;
    }
    message.reset(gst_bus_timed_pop_filtered(bus.get(), kPatience, wanted));
  }
  if (GST_MESSAGE_TYPE(message.get()) == GST_MESSAGE_ERROR) {
    *reason = no_picture(location, error_text(message.get(), status));
    return nullptr;
  }
  std::shared_ptr<const Picture> picture = first_frame(pipeline);
  if (!picture) *reason = no_picture(location, "it holds no picture.");
  return picture;
}

}  // namespace

std::shared_ptr<const Picture> read_picture(const std::string &location,
                                            const std::function<bool()> &cancelled, WanStatus *status,
                                            std::string *reason) {
  const std::string uri = uri_of(location);
  *status = WAN_INVALID;
  if (gst_uri_has_protocol(uri.c_str(), "wan")) {
    *reason = no_picture(location, "it cannot be another wansrc's.");
    return nullptr;
  }
  if (is_special_file(uri)) {
    *reason = no_picture(location, "it is not a regular file.");
    return nullptr;
  }
  GError *error = nullptr;
  const Owned<GstElement> pipeline(
      gst_parse_launch_full(kDecoder, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error));
  const Owned<GError> owned(error);
  if (!pipeline || uri.empty()) {
    *reason = no_picture(location, pipeline ? "that is no path or URI." : utf8(error->message) + ".");
    return nullptr;
  }
  const Owned<GstElement> source(gst_bin_get_by_name(GST_BIN(pipeline.get()), "source"));
  g_object_set(source.get(), "uri", uri.c_str(), nullptr);
  g_signal_connect(source.get(), "autoplug-factories", G_CALLBACK(choose_factories), nullptr);
  add_size_limit(pipeline.get());
  std::shared_ptr<const Picture> picture = preroll(pipeline.get(), location, cancelled, status, reason);
  gst_element_set_state(pipeline.get(), GST_STATE_NULL);
  if (picture) *status = WAN_OK;
  return picture;
}

std::shared_ptr<const Picture> convert_picture(GstSample *sample, std::string *reason) {
  const Owned<GstCaps> rgb(gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, "RGB", nullptr));
  GError *error = nullptr;
  const bool is_whole = gst_sample_get_caps(sample) && gst_sample_get_buffer(sample);
  const Owned<GstSample> converted(
      is_whole ? gst_video_convert_sample(sample, rgb.get(), GST_CLOCK_TIME_NONE, &error) : nullptr);
  const Owned<GError> owned(error);
  std::shared_ptr<const Picture> picture = converted ? copy_pixels(converted.get()) : nullptr;
  if (!picture)
    *reason = "A picture cannot be converted to RGB: " +
              (error ? utf8(error->message) : std::string("its caps are no video"));
  return picture;
}

}  // namespace wan
