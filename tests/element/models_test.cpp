// Models are shared: one for each choice in the process, used in turns, and kept as long as somebody may need
// it.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmock/gmock.h>
#include <gmodule.h>

#include <algorithm>
#include <chrono>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

using std::chrono::milliseconds;

// Models that the stub engine holds.
int loaded() {
  GModule *module = g_module_open(test_library("WAN_TEST_STUB_ENGINE").c_str(), G_MODULE_BIND_LOCAL);
  gpointer symbol = nullptr;
  EXPECT_TRUE(module && g_module_symbol(module, "stub_models", &symbol));
  const int models = symbol ? reinterpret_cast<int (*)()>(symbol)() : -1;
  if (module) g_module_close(module);
  return models;
}

// A worker that was left behind by a test before lets its model go in the end.
void expect_none() {
  for (int wait = 0; wait < 1000 && loaded() > 0; ++wait) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_EQ(loaded(), 0);
}

std::string named(const std::string &name, const std::string &prompt) {
  std::string source = stub_source(prompt);
  return source.replace(source.find("name=src"), 8, "name=" + name);
}

TEST(Models, OfTheSameChoiceAreOne) {
  Pipeline pipeline(named("a", "clip=20") + "num-clips=3 ! fakesink " + named("b", "clip=20") +
                    "num-clips=3 ! fakesink " + named("c", "") + "dtype=float32 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GstMessageType(GST_MESSAGE_EOS | GST_MESSAGE_ERROR)), nullptr);
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  EXPECT_EQ(loaded(), 2);
  pipeline.reach(GST_STATE_NULL);
  expect_none();
}

// Neither gives way in the middle of a clip, and what puts them together takes the frames of both at once.
TEST(Models, AreSharedByElementsThatWaitForEachOther) {
  const std::string clip = "num-frames=81 num-clips=2 queue-size=1 seed=1 ! video/x-raw,format=RGBA ! m. ";
  Pipeline pipeline("compositor name=m ! fakesink " + named("a", "") + clip + named("b", "") + clip);
  pipeline.set_state(GST_STATE_PLAYING);
  const GstMessage *end = pipeline.wait(GstMessageType(GST_MESSAGE_EOS | GST_MESSAGE_ERROR));
  ASSERT_NE(end, nullptr) << "they wait for each other";
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  EXPECT_EQ(loaded(), 1);
}

// Of the real engine, whose model keeps the end of a clip for the crossfade into the next.
TEST(Models, AreSharedWithoutATraceInTheVideos) {
  const auto fading = [](const char *seed) {
    return "wansrc device=cpu steps=1 transition=crossfade transition-frames=2 num-frames=5 num-clips=3 "
           "seed=" +
           std::string(seed) + kSmallCaps + kSink;
  };
  const std::string alone[] = {video_of(fading("1")), video_of(fading("100"))};
  std::string together[2];
  std::thread other([&] { together[1] = video_of(fading("100")); });
  together[0] = video_of(fading("1"));
  other.join();
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(!alone[i].empty() && together[i] == alone[i]) << i;
}

TEST(Models, OnSeveralDevicesSayHowTheseShareAClip) {
  Pipeline pipeline("wansrc name=src device=cpu,cpu decoder-device=cpu steps=1 num-frames=5" + kSmallCaps +
                    kSink);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  const Ptr<GstStructure> stats = pipeline.stats();
  gint guidance = 0, sequence = 0;
  gst_structure_get(stats.get(), "guidance-devices", G_TYPE_INT, &guidance, "sequence-devices", G_TYPE_INT,
                    &sequence, nullptr);
  EXPECT_EQ(guidance, 2);
  EXPECT_EQ(sequence, 1);
  EXPECT_STREQ(gst_structure_get_string(stats.get(), "device"), "cpu,cpu");
}

TEST(Models, WithAWorkerThatIsNotThereSayWhereItWasSought) {
  Pipeline pipeline("wansrc device=cpu worker=127.0.0.1:1 num-frames=5" + kSmallCaps + kSink);
  pipeline.run();
  const std::optional<Error> error = first_error(pipeline);
  ASSERT_TRUE(error);
  EXPECT_THAT(error->message, testing::HasSubstr("No worker answers at 127.0.0.1:1"));
}

TEST(Models, OfAWorkerThatIsSlowToStopIsWaitedFor) {
  expect_none();
  Pipeline pipeline(stub_source("stubborn") + "num-frames=5 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  pipeline.set_state(GST_STATE_READY);
  g_object_set(pipeline.find("src").get(), "prompt", "", nullptr);
  gst_util_set_object_arg(G_OBJECT(pipeline.find("src").get()), "dtype", "float32");
  pipeline.set_state(GST_STATE_PLAYING);
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_EQ(loaded(), 1) << "another beside the first may be more than the memory holds";
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_EQ(loaded(), 1);
}

TEST(Models, AreKeptWhateverBecomesOfRunsBetween) {
  expect_none();
  Pipeline pipeline(stub_source("") + "! capsfilter name=filter caps=video/x-raw,width=64 ! fakesink");
  const auto play = [&](const char *caps, GstMessageType until) {
    gst_util_set_object_arg(G_OBJECT(pipeline.find("filter").get()), "caps", caps);
    pipeline.set_state(GST_STATE_PLAYING);
    EXPECT_NE(pipeline.wait(until), nullptr);
    pipeline.reach(GST_STATE_READY);
    EXPECT_EQ(loaded(), 1) << caps;
  };
  play("video/x-raw,width=64", GST_MESSAGE_EOS);
  play("video/x-raw,width=100", GST_MESSAGE_ERROR);
  play("audio/x-raw", GST_MESSAGE_ERROR);
  pipeline.set_state(GST_STATE_PAUSED);
  pipeline.set_state(GST_STATE_READY);
  const size_t before = pipeline.messages(GST_MESSAGE_PROGRESS).size();
  play("video/x-raw,width=64", GST_MESSAGE_EOS);
  const auto progress = pipeline.messages(GST_MESSAGE_PROGRESS);
  ASSERT_GT(progress.size(), before);
  gchar *text = nullptr;
  gst_message_parse_progress(const_cast<GstMessage *>(progress[before]), nullptr, nullptr, &text);
  EXPECT_TRUE(g_str_has_prefix(text, "using the model ")) << "loaded again";
  g_free(text);
}

TEST(Models, AreWaitedForNoLongerThanTheElementRuns) {
  Pipeline busy(named("a", "clip=60000") + "! fakesink"), waits(stub_source("") + "! fakesink");
  busy.set_state(GST_STATE_PLAYING);
  while (loaded() == 0) std::this_thread::sleep_for(milliseconds(2));
  auto shortest = std::chrono::steady_clock::duration::max();
  for (int run = 0; run < 3; ++run) {  // on a busy machine one may take longer
    waits.set_state(GST_STATE_PLAYING);
    std::this_thread::sleep_for(milliseconds(100));
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(waits.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    shortest = std::min(shortest, std::chrono::steady_clock::now() - start);
  }
  EXPECT_LT(shortest, milliseconds(900)) << "it was left behind";
}

}  // namespace
}  // namespace wan::test
