// SPDX-License-Identifier: LGPL-2.1-or-later
#include "support.h"

#include <gst/app/gstappsink.h>

#include <cstdlib>
#include <stdexcept>

namespace wan::test {

constexpr GstClockTime kLongTime = 60 * GST_SECOND;

std::string test_library(const char *variable) {
  const char *path = std::getenv(variable);
  if (!path)
    throw std::runtime_error(std::string(variable) + " is not set: run the tests through meson test");
  return path;
}

std::string stub_source(const std::string &prompt) {
  return "wansrc name=src engine=" + test_library("WAN_TEST_STUB_ENGINE") + " prompt=\"" + prompt + "\" ";
}

Pipeline::Pipeline(const std::string &launch) {
  GError *error = nullptr;
  pipeline_.reset(gst_parse_launch_full(launch.c_str(), nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error));
  if (!pipeline_) throw std::runtime_error(launch + ": " + error->message);
}

Pipeline::~Pipeline() {
  set_state(GST_STATE_NULL);
}

Ptr<GstElement> Pipeline::find(const char *name) const {
  return Ptr<GstElement>(gst_bin_get_by_name(GST_BIN(get()), name));
}

GstStateChangeReturn Pipeline::reach(GstState state) {
  set_state(state);
  return gst_element_get_state(get(), nullptr, nullptr, kLongTime);
}

const GstMessage *Pipeline::wait(GstMessageType types) {
  Ptr<GstBus> bus(gst_element_get_bus(get()));
  while (GstMessage *message = gst_bus_timed_pop(bus.get(), kLongTime)) {
    messages_.emplace_back(message);
    if (GST_MESSAGE_TYPE(message) & types) return message;
  }
  return nullptr;
}

const GstStructure *Pipeline::wait_progress(const std::string &stage) {
  while (const GstMessage *message = wait(GstMessageType(GST_MESSAGE_ELEMENT | GST_MESSAGE_ERROR))) {
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) return nullptr;
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    if (gst_structure_has_name(structure, "wan-progress") &&
        gst_structure_get_string(structure, "stage") == stage)
      return structure;
  }
  return nullptr;
}

void Pipeline::run() {
  set_state(GST_STATE_PLAYING);
  wait(GstMessageType(GST_MESSAGE_EOS | GST_MESSAGE_ERROR));
  if (Ptr<GstElement> sink = find("sink"); sink && GST_IS_APP_SINK(sink.get())) {
    while (GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 0))
      samples_.emplace_back(sample);
  }
  EXPECT_EQ(reach(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
}

std::vector<const GstMessage *> Pipeline::messages(GstMessageType types) const {
  std::vector<const GstMessage *> found;
  for (const auto &message : messages_)
    if (GST_MESSAGE_TYPE(message.get()) & types) found.push_back(message.get());
  return found;
}

Ptr<GstStructure> Pipeline::stats() const {
  GstStructure *stats = nullptr;
  g_object_get(find("src").get(), "stats", &stats, nullptr);
  return Ptr<GstStructure>(stats);
}

std::optional<Error> first_error(const Pipeline &pipeline) {
  const auto errors = pipeline.messages(GST_MESSAGE_ERROR);
  if (errors.empty()) return std::nullopt;
  GError *error = nullptr;
  gchar *debug = nullptr;
  gst_message_parse_error(const_cast<GstMessage *>(errors.front()), &error, &debug);
  Error result = {g_quark_to_string(error->domain), error->message, debug ? debug : "", error->code};
  g_error_free(error);
  g_free(debug);
  return result;
}

Error error_of(const std::string &launch) {
  Pipeline pipeline(launch);
  pipeline.run();
  const auto error = first_error(pipeline);
  EXPECT_TRUE(error) << launch;
  return error.value_or(Error{});
}

std::string bytes(GstBuffer *buffer) {
  std::string data(gst_buffer_get_size(buffer), '\0');
  gst_buffer_extract(buffer, 0, data.data(), data.size());
  return data;
}

std::string bytes(GstSample *sample) {
  return bytes(gst_sample_get_buffer(sample));
}

std::string video_of(const std::string &launch) {
  Pipeline pipeline(launch);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  std::string video;
  for (const auto &sample : pipeline.samples()) video += bytes(sample.get());
  return video;
}

ModelCopy::ModelCopy() {
  std::string name = std::filesystem::temp_directory_path() / "wan-model-XXXXXX";
  directory_ = g_mkdtemp(name.data());
  std::filesystem::copy(std::getenv("GST_WAN_MODEL"), directory_, std::filesystem::copy_options::recursive);
}

ModelCopy::~ModelCopy() {
  std::filesystem::remove_all(directory_);
}

std::string ModelCopy::source() const {
  return kSmallSource + "model=" + directory_.string() + kSmallCaps;
}

}  // namespace wan::test

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  const int failed = RUN_ALL_TESTS();
  gst_deinit();  // lets the leaks tracer speak
  return failed;
}
