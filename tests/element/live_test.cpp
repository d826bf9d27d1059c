// A live source: a frame for every frame time, whatever the engine does. The clock is the test's own where
// timing matters; the stub engine's prompts say how long it takes.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/app/gstappsink.h>
#include <gst/check/gstharness.h>
#include <gst/check/gsttestclock.h>
#include <gst/video/video.h>

#include <functional>
#include <stdexcept>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

constexpr GstClockTime kFrame = GST_SECOND / 25;  // of the stub
constexpr char kNever[] = "clip=1000000";         // a clip that takes for ever

void wait_until(const std::function<bool()> &condition) {
  while (!condition()) std::this_thread::sleep_for(std::chrono::milliseconds(2));
}

struct Frame {
  GstClockTime pts, duration;
  bool repeated, discont;
  int clip, frame;
  guint8 luma;
};

Frame describe(GstBuffer *buffer) {
  Frame frame = {GST_BUFFER_PTS(buffer),
                 GST_BUFFER_DURATION(buffer),
                 false,
                 GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DISCONT) != 0,
                 0,
                 0,
                 0};
  const GstStructure *meta = gst_custom_meta_get_structure(gst_buffer_get_custom_meta(buffer, "GstWanMeta"));
  gboolean repeated = FALSE;
  gst_structure_get(meta, "clip", G_TYPE_INT, &frame.clip, "frame", G_TYPE_INT, &frame.frame, "repeated",
                    G_TYPE_BOOLEAN, &repeated, nullptr);
  frame.repeated = repeated;
  gst_buffer_extract(buffer, 0, &frame.luma, 1);
  return frame;
}

// The element alone, in PLAYING, with a clock that stands still until the test sets it.
class Live {
 public:
  // queued: the prompt of a first clip.
  explicit Live(const std::string &properties, const char *queued = nullptr) {
    // In a bin, since a harness takes an element with a template of a sink pad for no source, and starts it.
    GError *error = nullptr;
    GstElement *bin = gst_parse_bin_from_description(
        (stub_source("clip=100") + "is-live=true " + properties).c_str(), TRUE, &error);
    EXPECT_EQ(error, nullptr) << error->message;
    element_.reset(gst_bin_get_by_name(GST_BIN(bin), "src"));
    gboolean accepted = TRUE;
    if (queued) g_signal_emit_by_name(element(), "enqueue", queued, nullptr, &accepted);
    EXPECT_TRUE(accepted);
    harness_ = gst_harness_new_with_element(bin, nullptr, "src");
    gst_object_unref(bin);
    bus_.reset(gst_bus_new());
    gst_element_set_bus(harness_->element, bus_.get());
    gst_harness_use_testclock(harness_);
    gst_harness_play(harness_);
  }
  ~Live() {
    gst_element_set_bus(harness_->element, nullptr);
    gst_harness_teardown(harness_);
  }

  GstElement *element() const { return element_.get(); }
  GstHarness *harness() const { return harness_; }

  Ptr<GstStructure> stats() const {
    GstStructure *stats = nullptr;
    g_object_get(element(), "stats", &stats, nullptr);
    return Ptr<GstStructure>(stats);
  }
  guint64 count(const char *field) const {
    guint64 value = 0;
    gst_structure_get_uint64(stats().get(), field, &value);
    return value;
  }
  guint queued() const {
    guint chunks = 0;
    gst_structure_get_uint(stats().get(), "queue-level", &chunks);
    return chunks;
  }

  Frame pull() const {
    GstBuffer *buffer = gst_harness_pull(harness_);
    if (!buffer) throw std::runtime_error("no frame came");
    const Frame frame = describe(buffer);
    gst_buffer_unref(buffer);
    return frame;
  }
  // The next event of that type; null after a long time.
  GstEvent *pull_event(GstEventType type) const {
    GstEvent *event = nullptr;
    do {
      g_clear_pointer(&event, gst_event_unref);
      event = gst_harness_pull_event(harness_);
    } while (event && GST_EVENT_TYPE(event) != type);
    return event;
  }
  // Sets the clock to the next frame time, for which the element waits, and takes the frame.
  Frame next() const {
    EXPECT_TRUE(gst_harness_crank_single_clock_wait(harness_));
    return pull();
  }
  // The first frame is black, since the stub takes 100 ms, and the clip's first one comes next.
  Frame start() const {
    const Frame filler = pull();
    wait_until([this] { return queued() > 0; });
    return filler;
  }
  void set_time(GstClockTime time) const { EXPECT_TRUE(gst_harness_set_time(harness_, time)); }
  // Lets the element sleep until long after its time.
  void oversleep(GstClockTime time) const {
    EXPECT_TRUE(waits());
    set_time(time);
    GstTestClock *clock = gst_harness_get_testclock(harness_);
    gst_clock_id_unref(gst_test_clock_process_next_clock_id(clock));
    gst_object_unref(clock);
  }
  bool waits() const { return gst_harness_wait_for_clock_id_waits(harness_, 1, 60); }

  // The next element message of that name.
  Ptr<GstMessage> message(const char *name) const {
    while (GstMessage *message = gst_bus_timed_pop(bus_.get(), 60 * GST_SECOND)) {
      Ptr<GstMessage> owned(message);
      const GstStructure *structure = gst_message_get_structure(message);
      if (structure && gst_structure_has_name(structure, name)) return owned;
    }
    return nullptr;
  }
  bool has_message(GstMessageType type) const {
    Ptr<GstMessage> message(gst_bus_pop_filtered(bus_.get(), type));
    return message != nullptr;
  }

 private:
  Ptr<GstElement> element_;
  GstHarness *harness_;
  Ptr<GstBus> bus_;
};

TEST(Live, StartsAtOnceInBlack) {
  Live live(std::string("prompt=") + kNever);
  const Frame first = live.pull();
  EXPECT_EQ(first.pts, 0u);
  EXPECT_EQ(first.duration, kFrame);
  EXPECT_TRUE(first.repeated);
  EXPECT_EQ(first.clip, -1);
  EXPECT_EQ(first.luma, 16);
  for (int i = 1; i < 10; ++i) {
    const Frame frame = live.next();
    EXPECT_EQ(frame.pts, i * kFrame);
    EXPECT_FALSE(frame.discont);
    EXPECT_EQ(frame.luma, 16);
  }
  EXPECT_EQ(live.count("repeated"), 10u);
  EXPECT_EQ(live.count("underruns"), 0u) << "it was not on air yet";
}

TEST(Live, SendsOneFrameForEachFrameTime) {
  Live live("seed=100 num-frames=9");
  live.start();
  for (int i = 1; i < 10; ++i) {
    ASSERT_TRUE(live.waits());
    EXPECT_EQ(gst_harness_buffers_in_queue(live.harness()), 0u);
    const Frame frame = live.next();
    EXPECT_EQ(frame.pts, i * kFrame);
    EXPECT_EQ(frame.frame, i - 1);
    EXPECT_FALSE(frame.repeated);
    EXPECT_EQ(frame.luma, 100);
  }
  EXPECT_EQ(live.count("dropped"), 0u);
}

TEST(Live, StampsRunningTime) {
  Live live("seed=100 num-frames=9");
  EXPECT_EQ(live.start().pts, 0u);
  // To be woken a little late does not matter: frames lie on their grid.
  live.oversleep(kFrame + 10 * GST_MSECOND);
  EXPECT_EQ(live.pull().pts, kFrame);
  EXPECT_EQ(live.next().pts, 2 * kFrame);
}

TEST(Underrun, RepeatsTheLastFrame) {
  Live live(std::string("seed=100 num-frames=5 num-clips=2 prompt=") + kNever, "clip=100");
  live.start();
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(live.next().repeated);
  for (int i = 6; i < 9; ++i) {
    const Frame frame = live.next();
    EXPECT_TRUE(frame.repeated);
    EXPECT_EQ(frame.frame, 4);
    EXPECT_EQ(frame.luma, 100);
    EXPECT_EQ(frame.pts, i * kFrame);
    EXPECT_FALSE(frame.discont);
  }
  EXPECT_EQ(live.count("underruns"), 1u);
  EXPECT_EQ(live.count("repeated"), 4u) << "one of them black";
  const Ptr<GstMessage> message = live.message("wan-underrun");
  ASSERT_NE(message, nullptr);
  guint64 pts = 0;
  gst_structure_get_uint64(gst_message_get_structure(message.get()), "pts", &pts);
  EXPECT_EQ(pts, 6 * kFrame);
}

TEST(Underrun, IsOverWithTheNextClip) {
  Live live("seed=100 num-frames=5 num-clips=2 prompt=clip=300");
  live.start();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(live.next().luma, 100);
  EXPECT_TRUE(live.next().repeated);
  wait_until([&] { return live.queued() > 0; });
  const Frame frame = live.next();
  EXPECT_EQ(frame.clip, 1);
  EXPECT_EQ(frame.luma, 101);
  live.message("wan-underrun");
  const Ptr<GstMessage> over = live.message("wan-underrun");
  ASSERT_NE(over, nullptr);
  gboolean running = TRUE;
  guint64 frames = 0;
  gst_structure_get(gst_message_get_structure(over.get()), "running", G_TYPE_BOOLEAN, &running, "frames",
                    G_TYPE_UINT64, &frames, nullptr);
  EXPECT_FALSE(running);
  EXPECT_EQ(frames, 1u);
}

TEST(Underrun, CanBeGaps) {
  Live live(std::string("underrun=gap seed=100 num-frames=5 num-clips=2 prompt=") + kNever, "clip=100");
  EXPECT_EQ(live.start().luma, 16) << "a gap needs a segment, so that the first is a frame";
  for (int i = 0; i < 5; ++i) live.next();
  for (int i = 6; i < 9; ++i) {
    ASSERT_TRUE(live.waits());
    gst_harness_crank_single_clock_wait(live.harness());
    GstEvent *event = live.pull_event(GST_EVENT_GAP);
    ASSERT_NE(event, nullptr);
    GstClockTime time, duration;
    gst_event_parse_gap(event, &time, &duration);
    EXPECT_EQ(time, i * kFrame);
    EXPECT_EQ(duration, kFrame);
    gst_event_unref(event);
  }
  EXPECT_EQ(live.count("gaps"), 3u);
  EXPECT_EQ(gst_harness_buffers_in_queue(live.harness()), 0u);
}

TEST(Underrun, CanStall) {
  Live live("underrun=stall seed=100 num-frames=5 num-clips=2 prompt=clip=200");
  const Frame first = live.pull();
  EXPECT_EQ(first.luma, 100) << "no filler";
  wait_until([&] { return live.queued() > 0; });
  for (int i = 1; i < 5; ++i) live.next();
  ASSERT_TRUE(live.waits());
  gst_harness_crank_single_clock_wait(live.harness());
  live.message("wan-underrun");
  live.set_time(GST_SECOND);  // while it stalls
  const Frame frame = live.pull();
  EXPECT_EQ(frame.pts, GST_SECOND);
  EXPECT_EQ(frame.clip, 1);
  EXPECT_TRUE(frame.discont);
  EXPECT_EQ(live.count("dropped"), 0u);
}

TEST(Live, LeavesOutFrameTimesThatALateDownstreamMissed) {
  Live live("seed=100 num-frames=25");
  live.start();
  EXPECT_EQ(live.next().frame, 0);
  live.oversleep(GST_SECOND + 10 * GST_MSECOND);
  const Frame frame = live.pull();
  EXPECT_EQ(frame.pts, GST_SECOND);
  EXPECT_EQ(frame.frame, 1) << "no frame is lost";
  EXPECT_TRUE(frame.discont);
  EXPECT_EQ(live.count("dropped"), 23u);
  EXPECT_TRUE(live.has_message(GST_MESSAGE_QOS));
  EXPECT_EQ(live.next().pts, GST_SECOND + kFrame);
}

// What comes out of a live source whose downstream holds each frame until hold(pts, now) of running time.
std::vector<GstClockTime> times_behind(Live &live,
                                       std::function<GstClockTime(GstClockTime, GstClockTime)> hold,
                                       size_t frames) {
  struct Downstream {
    GstTestClock *clock;
    std::function<GstClockTime(GstClockTime, GstClockTime)> hold;
  } downstream{gst_harness_get_testclock(live.harness()), std::move(hold)};
  const Ptr<GstPad> pad(gst_element_get_static_pad(live.element(), "src"));
  const auto delay = [](GstPad *, GstPadProbeInfo *info, gpointer user) {
    auto &[clock, hold] = *static_cast<Downstream *>(user);
    const GstClockTime now = gst_clock_get_time(GST_CLOCK(clock));
    const GstClockTime until = hold(GST_BUFFER_PTS(gst_pad_probe_info_get_buffer(info)), now);
    if (until > now) gst_test_clock_set_time(clock, until);
    return GST_PAD_PROBE_OK;
  };
  live.pull();
  live.waits();
  const gulong probe = gst_pad_add_probe(pad.get(), GST_PAD_PROBE_TYPE_BUFFER, delay, &downstream, nullptr);
  std::vector<GstClockTime> times;
  while (times.size() < frames) {
    if (gst_harness_buffers_in_queue(live.harness()) > 0)
      times.push_back(live.pull().pts);
    else if (gst_test_clock_peek_id_count(downstream.clock) > 0)
      gst_harness_crank_single_clock_wait(live.harness());
    else
      std::this_thread::yield();
  }
  gst_element_set_state(live.element(), GST_STATE_NULL);
  gst_pad_remove_probe(pad.get(), probe);
  gst_object_unref(downstream.clock);
  return times;
}

TEST(Late, BehindASinkThatHoldsEachFrameNoTimeIsLeftOut) {
  for (const GstClockTime held : {300 * GST_MSECOND, 2 * GST_SECOND}) {
    Live live("seed=100 num-clips=-1");
    const std::vector<GstClockTime> times = times_behind(
        live, [held](GstClockTime pts, GstClockTime) { return pts + held; }, 50);
    for (size_t i = 0; i < times.size(); ++i) EXPECT_EQ(times[i], (i + 1) * kFrame);
  }
}

TEST(Late, AfterADownstreamThatWasBlockedOnceTimesAreLeftOutSoon) {
  Live live("seed=100 num-clips=-1");
  const auto once = [](GstClockTime pts, GstClockTime now) {
    return pts == 10 * kFrame ? now + GST_SECOND : now;
  };
  const std::vector<GstClockTime> times = times_behind(live, once, 20);
  EXPECT_EQ(times[9], 10 * kFrame);
  EXPECT_GE(times[13], 34 * kFrame) << "a few frames tell a block from a delay";
  EXPECT_GE(live.count("dropped"), 20u);
}

TEST(Late, BehindASlowDownstreamTimesAreLeftOut) {
  Live live("seed=100 num-clips=-1");
  GstClockTime latest = 0;
  const auto slow = [&latest](GstClockTime pts, GstClockTime now) {
    latest = std::max(latest, now - pts);
    return now + 60 * GST_MSECOND;
  };
  const std::vector<GstClockTime> times = times_behind(live, slow, 100);
  EXPECT_GE(times.back(), 120 * kFrame);
  EXPECT_LE(latest, 300 * GST_MSECOND);
}

TEST(Late, WithinThePipelinesLatencyNoTimeIsLeftOut) {
  Live live("seed=100 num-clips=-1");
  live.start();
  gst_harness_push_upstream_event(live.harness(), gst_event_new_latency(GST_SECOND));
  live.oversleep(GST_SECOND);
  for (int i = 1; i < 25; ++i) EXPECT_EQ(live.pull().pts, i * kFrame);
  EXPECT_EQ(live.count("dropped"), 0u);
}

TEST(Clock, MayBeMissing) {
  for (const char *policy : {"repeat", "gap", "stall"}) {
    Pipeline pipeline(stub_source(kNever) + "is-live=true underrun=" + policy + " ! fakesink");
    gst_pipeline_use_clock(GST_PIPELINE(pipeline.get()), nullptr);
    pipeline.set_state(GST_STATE_PLAYING);
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    guint64 frames = 0, gaps = 0;
    gst_structure_get(pipeline.stats().get(), "frames-pushed", G_TYPE_UINT64, &frames, "gaps", G_TYPE_UINT64,
                      &gaps, nullptr);
    EXPECT_LE(frames + gaps, 100u) << policy << " spins";
    EXPECT_EQ(frames + gaps > 2, std::string(policy) != "stall");
  }
}

// As an application does on CLOCK_LOST. The other clock may count from anywhere.
TEST(Clock, ThatChangesInAPauseDoesNotMoveTheStream) {
  for (const GstClockTime begins : {GstClockTime(50) * GST_SECOND, GstClockTime(1) << 61}) {
    Pipeline pipeline(stub_source("") + "is-live=true num-clips=-1 ! appsink name=sink sync=false");
    const Ptr<GstElement> sink = pipeline.find("sink");
    const auto play = [&](int frames) {
      pipeline.reach(GST_STATE_PLAYING);
      GstClockTime pts = 0;
      for (int i = 0; i < frames; ++i) {
        const Ptr<GstSample> sample(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 60 * GST_SECOND));
        if (!sample) return GST_CLOCK_TIME_NONE;
        pts = GST_BUFFER_PTS(gst_sample_get_buffer(sample.get()));
      }
      return pts;
    };
    const GstClockTime before = play(5);
    pipeline.reach(GST_STATE_PAUSED);
    auto *clock = GST_CLOCK(g_object_new(GST_TYPE_SYSTEM_CLOCK, nullptr));
    gst_clock_set_calibration(clock, gst_clock_get_internal_time(clock), begins, 1, 1);
    gst_pipeline_use_clock(GST_PIPELINE(pipeline.get()), clock);
    gst_object_unref(clock);
    const GstClockTime after = play(10);
    EXPECT_GT(after, before);
    EXPECT_LT(after, before + 10 * GST_SECOND);
    pipeline.set_state(GST_STATE_NULL);
  }
}

// Since GStreamer 1.24 a pause interrupts the source, which must be there again however short the pause was.
TEST(Pause, OfNoLengthStopsNothing) {
  for (const char *policy : {"repeat", "gap", "stall"}) {
    Pipeline pipeline(stub_source("") + "is-live=true num-clips=-1 underrun=" + policy +
                      " ! appsink name=sink sync=false");
    const Ptr<GstElement> sink = pipeline.find("sink");
    pipeline.reach(GST_STATE_PLAYING);
    for (int i = 0; i < 60; ++i) {
      pipeline.set_state(GST_STATE_PAUSED);
      pipeline.set_state(GST_STATE_PLAYING);
      std::this_thread::sleep_for(std::chrono::milliseconds(i % 10));
    }
    while (Ptr<GstSample>(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 0))) {
    }
    for (int i = 0; i < 3; ++i)
      EXPECT_TRUE(Ptr<GstSample>(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 20 * GST_SECOND)))
          << policy;
    pipeline.set_state(GST_STATE_NULL);
  }
}

TEST(Pause, LosesNoFrame) {
  Pipeline pipeline(stub_source("") +
                    "is-live=true num-clips=-1 num-frames=1 seed=1 ! appsink name=sink sync=false");
  const Ptr<GstElement> sink = pipeline.find("sink");
  for (int i = 0; i < 20; ++i) {
    pipeline.set_state(GST_STATE_PLAYING);
    std::this_thread::sleep_for(std::chrono::milliseconds(45));
    pipeline.set_state(GST_STATE_PAUSED);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  int clip = -1;
  while (GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 0)) {
    const Ptr<GstSample> owned(sample);
    const Frame frame = describe(gst_sample_get_buffer(sample));
    if (frame.repeated) continue;
    EXPECT_EQ(frame.clip, clip + 1);
    clip = frame.clip;
  }
  EXPECT_GT(clip, 2);
}

TEST(Rates, OfAllSizesDoNoHarm) {
  for (const char *rate : {"1/2147483647", "1/1000", "1000/1", "2147483647/1"}) {
    Pipeline pipeline(stub_source("") + "is-live=true num-clips=-1 ! video/x-raw,framerate=" + rate +
                      " ! fakesink");
    pipeline.reach(GST_STATE_PLAYING);
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    for (int i = 0; i < 3; ++i) {
      pipeline.set_state(GST_STATE_PAUSED);
      pipeline.set_state(GST_STATE_PLAYING);
    }
    EXPECT_EQ(pipeline.reach(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
    EXPECT_FALSE(first_error(pipeline)) << rate;
  }
}

TEST(Filler, IsMarkedAsAGap) {
  Live live(std::string("seed=100 num-frames=5 num-clips=2 prompt=") + kNever, "clip=100");
  live.start();
  for (int i = 1; i < 9; ++i) {
    gst_harness_crank_single_clock_wait(live.harness());
    GstBuffer *buffer = gst_harness_pull(live.harness());
    EXPECT_EQ(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_GAP) != 0, describe(buffer).repeated) << i;
    gst_buffer_unref(buffer);
  }
}

TEST(Prebuffer, CanBeMadeShorterAgain) {
  Live live("prebuffer=2000000000 seed=100 num-frames=9 num-clips=-1");
  const auto held = [&] {
    double seconds = 0;
    gst_structure_get_double(live.stats().get(), "queue-seconds", &seconds);
    return seconds;
  };
  live.pull();
  while (held() < 2) {
    live.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  g_object_set(live.element(), "prebuffer", guint64(0), nullptr);
  for (int i = 0; i < 100 && held() > 1; ++i) live.next();
  std::this_thread::sleep_for(std::chrono::milliseconds(800));  // enough to fill it again
  EXPECT_LE(held(), 1);
}

TEST(Filler, FadesIn) {
  Live live("filler=fade seed=200 num-frames=25");
  EXPECT_EQ(live.start().luma, 16);
  int before = 16;
  for (int i = 0; i < 12; ++i) {
    const int luma = live.next().luma;
    EXPECT_GT(luma, before);
    EXPECT_NEAR(luma, 16 + (200 - 16) * (i + 1) / 13, 3);
    before = luma;
  }
  EXPECT_EQ(live.next().luma, 200);
}

TEST(Prebuffer, IsFilledBeforeGoingOnAir) {
  Live live("prebuffer=400000000 seed=100 num-frames=41 prompt=chunk=20");
  live.pull();
  Frame frame = {};
  double held = 0;
  while (frame.luma != 100) {
    wait_until([&] { return live.waits(); });
    gst_structure_get_double(live.stats().get(), "queue-seconds", &held);
    frame = live.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(held, 0.4 - 4 * 0.04) << "it may have grown by a chunk since it was looked at";
}

TEST(Prebuffer, MayBeLongerThanAClip) {
  Live live("prebuffer=2000000000 seed=100 num-frames=9 num-clips=-1");
  live.pull();
  double held = 0;
  for (Frame frame = {}; frame.luma < 100; frame = live.next()) {
    gst_structure_get_double(live.stats().get(), "queue-seconds", &held);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GE(held, 2 - 9 * 0.04) << "it may have grown by a clip since it was looked at";
}

TEST(Prebuffer, LongerThanTheVideoDoesNotHoldItBack) {
  Live live("prebuffer=60000000000 seed=100 num-frames=5");
  live.start();
  wait_until([&] { return live.queued() == 2; });
  // The end of the stream is known a moment later.
  while (live.next().repeated) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  for (int i = 1; i < 5; ++i) EXPECT_EQ(live.next().frame, i);
}

TEST(Latency, IsAFrame) {
  Live live("num-frames=5");
  live.pull();
  Ptr<GstQuery> query(gst_query_new_latency());
  ASSERT_TRUE(gst_element_query(live.element(), query.get()));
  gboolean is_live = FALSE;
  GstClockTime min = 0, max = 0;
  gst_query_parse_latency(query.get(), &is_live, &min, &max);
  EXPECT_TRUE(is_live);
  EXPECT_EQ(min, kFrame);
  EXPECT_EQ(max, GST_CLOCK_TIME_NONE);
  EXPECT_FALSE(live.has_message(GST_MESSAGE_LATENCY));
}

TEST(Latency, ChangeIsAnnounced) {
  Pipeline pipeline(stub_source("") + "is-live=true num-frames=5 ! video/x-raw,framerate=50/1 ! fakesink");
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  bool announced = false;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_LATENCY))
    announced |= std::string(GST_OBJECT_NAME(GST_MESSAGE_SRC(message))) == "src";
  EXPECT_TRUE(announced);
}

TEST(Live, LoadsBehindTheStream) {
  Pipeline pipeline(kSmallSource + "is-live=true" + kSmallCaps + "! fakesink");
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_NO_PREROLL);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_TRUE(pipeline.messages(GST_MESSAGE_PROGRESS).empty()) << "applications wait in PAUSED for these";
  EXPECT_EQ(pipeline.stats() != nullptr, true);
  guint64 repeated = 0;
  gst_structure_get_uint64(pipeline.stats().get(), "repeated", &repeated);
  EXPECT_GT(repeated, 0u) << "the stream ran while the model was loaded";
}

struct Arrival {
  GstClockTime pts, running_time;
};

// When frames come out of a live pipeline, which plays for a while, pauses, and plays again.
std::vector<Arrival> arrivals_with_a_pause() {
  Pipeline pipeline(stub_source("") +
                    "is-live=true num-clips=-1 ! fakesink name=sink sync=false signal-handoffs=true");
  struct Arrivals {
    std::mutex mutex;
    std::vector<Arrival> list;
  } arrivals;
  g_signal_connect(
      pipeline.find("sink").get(), "handoff",
      G_CALLBACK(+[](GstElement *sink, GstBuffer *buffer, GstPad *, Arrivals *arrivals) {
        const std::lock_guard lock(arrivals->mutex);
        arrivals->list.push_back({GST_BUFFER_PTS(buffer), gst_element_get_current_running_time(sink)});
      }),
      &arrivals);
  const auto play_until = [&](size_t frames) {
    pipeline.set_state(GST_STATE_PLAYING);
    wait_until([&] {
      const std::lock_guard lock(arrivals.mutex);
      return arrivals.list.size() >= frames;
    });
  };
  play_until(10);
  pipeline.set_state(GST_STATE_PAUSED);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  play_until(20);
  pipeline.set_state(GST_STATE_NULL);
  return arrivals.list;
}

TEST(Pause, ResumesWithoutABurst) {
  const std::vector<Arrival> arrivals = arrivals_with_a_pause();
  for (size_t i = 1; i < arrivals.size(); ++i) {
    // A busy machine may miss frame times, but frames stay on their grid.
    EXPECT_GT(arrivals[i].pts, arrivals[i - 1].pts) << i;
    EXPECT_EQ((arrivals[i].pts - arrivals[0].pts) % kFrame, 0u) << i;
    // Released at its time, of a running time that stands still in the pause, which may catch one frame on
    // its way.
    EXPECT_GT(GstClockTimeDiff(arrivals[i].running_time), GstClockTimeDiff(arrivals[i].pts - kFrame)) << i;
  }
}

TEST(Flush, GoesOnWhereTheRunningTimeIs) {
  Live live("seed=100 num-clips=-1");
  live.start();
  for (int i = 0; i < 20; ++i) live.next();
  gst_element_send_event(live.element(), gst_event_new_flush_start());
  gst_element_set_base_time(live.element(), 20 * kFrame);  // as a pipeline does after a flush
  gst_element_send_event(live.element(), gst_event_new_flush_stop(TRUE));
  Frame frame = live.pull();
  EXPECT_LE(frame.pts, kFrame);
  EXPECT_EQ(live.next().pts, frame.pts + kFrame);
}

TEST(Live, EndsWithEos) {
  Live live("seed=100 num-frames=5");
  live.start();
  for (int i = 0; i < 5; ++i) live.next();
  while (live.queued() || !live.waits()) {
  }
  gst_harness_crank_single_clock_wait(live.harness());
  GstEvent *event = live.pull_event(GST_EVENT_EOS);
  EXPECT_NE(event, nullptr);
  g_clear_pointer(&event, gst_event_unref);
}

TEST(Live, FramesMayBeWrittenTo) {
  Live live(std::string("seed=100 num-frames=5 num-clips=2 prompt=") + kNever, "clip=100");
  live.start();
  for (int i = 0; i < 7; ++i) {
    gst_harness_crank_single_clock_wait(live.harness());
    GstBuffer *buffer = gst_buffer_make_writable(gst_harness_pull(live.harness()));
    EXPECT_EQ(describe(buffer).luma, 100) << "the frame that is sent again is as it was";
    gst_buffer_memset(buffer, 0, 7, 64);
    EXPECT_EQ(describe(buffer).luma, 7);
    gst_buffer_unref(buffer);
  }
}

}  // namespace
}  // namespace wan::test
