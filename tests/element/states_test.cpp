// Starting, stopping and interrupting, at every moment and many times.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/app/gstappsink.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Stops a pipeline, and reports how long that took.
void expect_prompt_stop(Pipeline &pipeline, const char *moment) {
  const Clock::time_point start = Clock::now();
  EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  const double seconds = seconds_since(start);
  std::printf("stopped %s in %.3f s\n", moment, seconds);
  EXPECT_LT(seconds, 10);
  GstState state;
  gst_element_get_state(pipeline.find("src").get(), &state, nullptr, 0);
  EXPECT_EQ(state, GST_STATE_NULL);
}

// Enough work to be caught in the middle.
const std::string kLongSource = "wansrc name=src device=cpu num-frames=81 steps=50 ";

TEST(Stop, DuringLoading) {
  Pipeline pipeline(kLongSource + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  const GstMessage *message = pipeline.wait(GST_MESSAGE_PROGRESS);
  ASSERT_NE(message, nullptr);
  expect_prompt_stop(pipeline, "while loading");
  while (pipeline.messages(GST_MESSAGE_PROGRESS).size() < 100) {
    GstProgressType type;
    gst_message_parse_progress(const_cast<GstMessage *>(pipeline.messages(GST_MESSAGE_PROGRESS).back()),
                               &type, nullptr, nullptr);
    if (type == GST_PROGRESS_TYPE_CANCELED || type == GST_PROGRESS_TYPE_COMPLETE) return;
    const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
    if (!gst_bus_have_pending(bus.get())) break;
    pipeline.wait(GST_MESSAGE_PROGRESS);
  }
}

// As `gst-launch-1.0 -e` where it is interrupted: it waits for the end of this message, too.
TEST(Stop, ByAnEndBeforeTheFirstFrame) {
  Pipeline pipeline(stub_source("clip=60000") + "num-clips=1 ! fakesink");
  pipeline.set_state(GST_STATE_PAUSED);
  pipeline.wait_progress("denoise");
  gst_element_send_event(pipeline.get(), gst_event_new_eos());
  GstProgressType type = GST_PROGRESS_TYPE_START;
  while (type != GST_PROGRESS_TYPE_COMPLETE) {
    const GstMessage *message = pipeline.wait(GST_MESSAGE_PROGRESS);
    ASSERT_NE(message, nullptr);
    gst_message_parse_progress(const_cast<GstMessage *>(message), &type, nullptr, nullptr);
  }
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
}

TEST(Stop, DuringDenoising) {
  Pipeline pipeline(kLongSource + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  expect_prompt_stop(pipeline, "while denoising");
}

TEST(Stop, DuringDecoding) {
  Pipeline pipeline("wansrc name=src device=cpu num-frames=81 steps=1 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("decode"), nullptr);
  expect_prompt_stop(pipeline, "while decoding");
}

TEST(Stop, WhileTheQueueIsFull) {
  Pipeline pipeline(stub_source("") + "queue-size=1 num-clips=-1 ! fakesink");
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  expect_prompt_stop(pipeline, "with a full queue");
}

TEST(Stop, LeavesABusyWorkerBehind) {
  Clock::time_point start;
  {
    Pipeline pipeline(stub_source("stubborn") + "! fakesink");
    pipeline.set_state(GST_STATE_PLAYING);
    ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
    start = Clock::now();
    expect_prompt_stop(pipeline, "with a worker that is deaf for 2.5 s");
    EXPECT_LT(seconds_since(start), 2.4) << "it waited for the worker";
  }
  // The worker's state must outlive the element.
  std::this_thread::sleep_until(start + std::chrono::seconds(3));
}

TEST(Stop, AndStartAgainAtOnce) {
  Pipeline pipeline(stub_source("stubborn") + "num-frames=5" + kSink);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  pipeline.set_state(GST_STATE_NULL);
  g_object_set(pipeline.find("src").get(), "prompt", "", nullptr);
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 5u);
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
}

size_t loads(const Pipeline &pipeline) {
  size_t count = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_PROGRESS)) {
    GstProgressType type;
    gchar *text = nullptr;
    gst_message_parse_progress(const_cast<GstMessage *>(message), &type, nullptr, &text);
    count += type == GST_PROGRESS_TYPE_START && g_str_has_prefix(text, "loading the model ");
    g_free(text);
  }
  return count;
}

void play_to_ready(Pipeline &pipeline) {
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  ASSERT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
}

TEST(Model, IsKeptInReady) {
  Pipeline pipeline(kSmallSource + kSmallCaps + "! fakesink");
  play_to_ready(pipeline);
  play_to_ready(pipeline);
  EXPECT_EQ(loads(pipeline), 1u);
  g_object_set(pipeline.find("src").get(), "dtype", 2, nullptr);
  play_to_ready(pipeline);
  EXPECT_EQ(loads(pipeline), 2u) << "another data type is another model";
  pipeline.set_state(GST_STATE_NULL);
  pipeline.set_state(GST_STATE_PLAYING);
  pipeline.wait(GST_MESSAGE_EOS);
  EXPECT_EQ(loads(pipeline), 3u) << "NULL drops the model";
}

TEST(Model, IsKeptAfterAClipWasInterrupted) {
  Pipeline pipeline(kLongSource + "seed=1" + kSmallCaps + kSink);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  ASSERT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  g_object_set(pipeline.find("src").get(), "num-frames", 5, "steps", 1, nullptr);
  pipeline.run();
  EXPECT_EQ(loads(pipeline), 1u);
  std::string video;
  for (const auto &sample : pipeline.samples()) video += bytes(sample.get());
  EXPECT_EQ(video, video_of(kSmallSource + kSmallCaps + kSink));
}

TEST(Events, EosEndsTheStream) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 ! fakesink sync=true");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  EXPECT_TRUE(gst_element_send_event(pipeline.get(), gst_event_new_eos()));
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  expect_prompt_stop(pipeline, "after EOS was sent");
}

TEST(Events, EosWhileDenoisingEndsTheStream) {
  Pipeline pipeline(kLongSource + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  gst_element_send_event(pipeline.find("src").get(), gst_event_new_eos());
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  expect_prompt_stop(pipeline, "after EOS was sent while denoising");
}

TEST(Events, FlushLosesNoFrameInTheQueue) {
  Pipeline pipeline(stub_source("") +
                    "num-frames=101 ! appsink name=sink sync=false wait-on-eos=false max-buffers=1");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstElement> source = pipeline.find("src"), sink = pipeline.find("sink");
  gst_element_send_event(source.get(), gst_event_new_flush_start());
  gst_element_send_event(source.get(), gst_event_new_flush_stop(FALSE));
  std::vector<guint64> offsets;
  while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get())))
    offsets.push_back(GST_BUFFER_OFFSET(gst_sample_get_buffer(Ptr<GstSample>(sample).get())));
  ASSERT_FALSE(offsets.empty());
  EXPECT_EQ(offsets.back(), 100u);
  // Downstream drops the frames that it holds: the one being pushed and those in the appsink. All others
  // arrive.
  EXPECT_LE(offsets.front(), 3u);
  for (size_t i = 1; i < offsets.size(); ++i) EXPECT_EQ(offsets[i], offsets[i - 1] + 1);
}

TEST(Events, DoNoHarmBeforeTheStart) {
  Pipeline pipeline(stub_source("") + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  gst_element_send_event(source.get(), gst_event_new_flush_start());
  gst_element_send_event(source.get(), gst_event_new_flush_stop(TRUE));
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 9u);
}

TEST(Properties, CanChangeAtAnyTime) {
  Pipeline pipeline(stub_source("") + "num-clips=300 num-frames=1 ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  std::atomic<bool> done = false;
  std::thread changer([&] {
    for (gint64 i = 0; !done; ++i) {
      g_object_set(source.get(), "prompt", i % 2 ? "one" : "two", "seed", i, "guidance-scale", 1.0 + i % 5,
                   nullptr);
      pipeline.stats();
    }
  });
  pipeline.run();
  done = true;
  changer.join();
  EXPECT_FALSE(first_error(pipeline));
}

// Every change from one state to another, as GStreamer's generic/states check makes them and more, so that
// each follows on each.
void walk_all_states(GstElement *element) {
  constexpr std::array kStates = {GST_STATE_NULL, GST_STATE_READY, GST_STATE_PAUSED, GST_STATE_PLAYING};
  for (const GstState from : kStates) {
    for (const GstState to : kStates) {
      for (const GstState state : {from, to}) {
        ASSERT_NE(gst_element_set_state(element, state), GST_STATE_CHANGE_FAILURE);
        ASSERT_NE(gst_element_get_state(element, nullptr, nullptr, 60 * GST_SECOND),
                  GST_STATE_CHANGE_FAILURE);
      }
    }
  }
  ASSERT_EQ(gst_element_set_state(element, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
}

TEST(States, EveryChangeOfAnUnconfiguredElement) {
  Ptr<GstElement> element(GST_ELEMENT(gst_object_ref_sink(gst_element_factory_make("wansrc", nullptr))));
  for (int i = 0; i < 3; ++i) walk_all_states(element.get());
}

TEST(States, EveryChangeOfAPipeline) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 ! fakesink sync=true");
  for (int i = 0; i < 10; ++i) walk_all_states(pipeline.get());
}

TEST(States, EveryChangeOfALivePipeline) {
  for (const char *policy : {"repeat", "gap", "stall"}) {
    Pipeline pipeline(stub_source("clip=20") + "is-live=true num-frames=5 num-clips=-1 underrun=" + policy +
                      " ! fakesink sync=true");
    for (int i = 0; i < 5; ++i) walk_all_states(pipeline.get());
  }
}

// A thousand lives of one element, and of its threads and queues, cut off at all moments.
TEST(Cycles, ThousandOnTheStub) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 ! fakesink");
  for (int i = 0; i < 1000; ++i) {
    ASSERT_NE(pipeline.set_state(GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
    if (i % 3) std::this_thread::sleep_for(std::chrono::microseconds(i * 2));
    ASSERT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  }
}

TEST(Cycles, ThousandOnTheModel) {
  Pipeline pipeline("wansrc name=src device=cpu num-frames=1 steps=1 num-clips=-1" + kSmallCaps +
                    "! fakesink");
  const Clock::time_point start = Clock::now();
  for (int i = 0; i < 1000; ++i) {
    ASSERT_NE(pipeline.set_state(GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
    if (i % 50 == 0) pipeline.reach(GST_STATE_PLAYING);  // now and then all the way
    ASSERT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  }
  std::printf("1000 cycles in %.1f s\n", seconds_since(start));
}

}  // namespace
}  // namespace wan::test
