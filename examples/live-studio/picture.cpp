// SPDX-License-Identifier: LGPL-2.1-or-later
#include "picture.h"

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>

#include <memory>
#include <string>
#include <string_view>

#include "json.h"

namespace studio {
namespace {

constexpr gsize kLargest = 512 * 1024;
constexpr GstClockTime kPatience = 5 * GST_SECOND;
// The size is checked before memory for the pixels is taken.
constexpr char kDecoder[] =
    "appsrc name=source caps=image/jpeg ! jpegparse ! image/jpeg,width=[1,2048],height=[1,2048] ! jpegdec ! "
    "tee name=tee ! queue ! appsink name=whole sync=false "
    "tee. ! queue ! videoscale ! video/x-raw,height=96,width=[16,192],pixel-aspect-ratio=1/1 ! videoconvert "
    "! jpegenc ! "
    "appsink name=small sync=false";

// A file may have the decoder go over the whole picture once for each of its scans; a baseline JPEG has one,
// or one for each of its components.
bool has_many_scans(std::string_view jpeg) {
  size_t scans = 0;
  for (size_t at = 0; (at = jpeg.find("\xff\xda", at)) != jpeg.npos; at += 2) ++scans;
  return scans > 4;
}

void check(GBytes *jpeg) {
  gsize size = 0;
  const auto *data = static_cast<const char *>(g_bytes_get_data(jpeg, &size));
  if (size > kLargest) throw BadMessage("The picture has more than 512 KiB.");
  const std::string_view bytes(size ? data : "", size);
  if (!bytes.starts_with("\xff\xd8\xff") || has_many_scans(bytes))
    throw BadMessage("The picture is no baseline JPEG.");
}

using Sample = std::unique_ptr<GstSample, decltype(&gst_sample_unref)>;

Sample pull(GstElement *pipeline, const char *sink_name) {
  g_autoptr(GstElement) sink = gst_bin_get_by_name(GST_BIN(pipeline), sink_name);
  GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), kPatience);
  if (!sample) throw BadMessage("The picture is no JPEG of at most 2048x2048 pixels.");
  return {sample, gst_sample_unref};
}

GBytes *bytes_of(GstSample *sample) {
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  gpointer data = nullptr;
  gsize size = 0;
  gst_buffer_extract_dup(buffer, 0, gst_buffer_get_size(buffer), &data, &size);
  return g_bytes_new_take(data, size);
}

// A pipeline that is stopped when it is left.
struct Decoder {
  explicit Decoder(GBytes *jpeg) {
    g_autoptr(GError) error = nullptr;
    pipeline = gst_parse_launch_full(kDecoder, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
    if (!pipeline) throw BadMessage(std::string("No picture can be taken here: ") + error->message + ".");
    g_autoptr(GstElement) source = gst_bin_get_by_name(GST_BIN(pipeline), "source");
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    gst_app_src_push_buffer(GST_APP_SRC(source), gst_buffer_new_wrapped_bytes(jpeg));
    gst_app_src_end_of_stream(GST_APP_SRC(source));
  }
  ~Decoder() {
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
  }
  Decoder(const Decoder &) = delete;
  Decoder &operator=(const Decoder &) = delete;

  GstElement *pipeline;
};

}  // namespace

Picture::Picture(GBytes *jpeg) {
  check(jpeg);
  const Decoder decoder(jpeg);
  Sample whole = pull(decoder.pipeline, "whole");
  thumbnail_ = bytes_of(pull(decoder.pipeline, "small").get());
  sample_ = whole.release();
}

Picture::~Picture() {
  gst_sample_unref(sample_);
  g_bytes_unref(thumbnail_);
}

}  // namespace studio
