// What the frames carry, what goes with them, and that a seed is a video.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/app/gstappsink.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

struct Meta {
  gint clip = -1, chunk = -1, frame = -1;
  guint64 seed = 0;
};

Meta meta_of(GstSample *sample) {
  Meta meta;
  GstCustomMeta *custom = gst_buffer_get_custom_meta(gst_sample_get_buffer(sample), "GstWanMeta");
  EXPECT_NE(custom, nullptr);
  if (!custom) return meta;
  EXPECT_TRUE(gst_structure_get(gst_custom_meta_get_structure(custom), "clip", G_TYPE_INT, &meta.clip,
                                "chunk", G_TYPE_INT, &meta.chunk, "frame", G_TYPE_INT, &meta.frame, "seed",
                                G_TYPE_UINT64, &meta.seed, nullptr));
  return meta;
}

TEST(Frames, AreStampedExactly) {
  Pipeline pipeline(
      "wansrc device=cpu num-frames=9 steps=1 ! video/x-raw,width=32,height=32,framerate=30000/1001" + kSink);
  pipeline.run();
  ASSERT_EQ(pipeline.samples().size(), 9u);
  for (guint64 i = 0; i < 9; ++i) {
    GstBuffer *buffer = gst_sample_get_buffer(pipeline.samples()[i].get());
    const GstClockTime start = gst_util_uint64_scale(i, GST_SECOND * 1001, 30000);
    const GstClockTime end = gst_util_uint64_scale(i + 1, GST_SECOND * 1001, 30000);
    EXPECT_EQ(GST_BUFFER_PTS(buffer), start);
    EXPECT_EQ(GST_BUFFER_DURATION(buffer), end - start);
    EXPECT_EQ(GST_BUFFER_OFFSET(buffer), i);
    EXPECT_EQ(GST_BUFFER_OFFSET_END(buffer), i + 1);
    EXPECT_EQ(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DISCONT), i == 0);
  }
}

TEST(Frames, CarryTheirOrigin) {
  Pipeline pipeline(kSmallSource + "num-clips=2" + kSmallCaps + kSink);
  pipeline.run();
  ASSERT_EQ(pipeline.samples().size(), 10u);
  for (int i = 0; i < 10; ++i) {
    const Meta meta = meta_of(pipeline.samples()[i].get());
    const int frame = i % 5;
    EXPECT_EQ(meta.clip, i / 5);
    EXPECT_EQ(meta.frame, frame);
    EXPECT_EQ(meta.chunk, (frame + 3) / 4);
    EXPECT_EQ(meta.seed, guint64(1 + i / 5));
    EXPECT_EQ(GST_BUFFER_OFFSET(gst_sample_get_buffer(pipeline.samples()[i].get())), guint64(i));
  }
}

TEST(Frames, OfACachedClipDifferLittle) {
  const auto video = [](const std::string &cache, gint *cached) {
    Pipeline pipeline("wansrc name=src device=cpu num-frames=5 steps=12 seed=1 prompt=\"a red circle\" " +
                      cache + " ! video/x-raw,format=RGB,width=64,height=64" + kSink);
    pipeline.run();
    EXPECT_FALSE(first_error(pipeline));
    gst_structure_get_int(pipeline.stats().get(), "cached-forwards", cached);
    std::string frames;
    for (const Ptr<GstSample> &sample : pipeline.samples()) frames += bytes(sample.get());
    return frames;
  };
  gint none = -1, some = -1;
  const std::string whole = video("", &none), cached = video("cache=first-block cache-threshold=0.2", &some);
  EXPECT_EQ(none, 0);
  EXPECT_GT(some, 0);
  ASSERT_EQ(cached.size(), whole.size());
  EXPECT_NE(cached, whole);
  double difference = 0;
  for (size_t i = 0; i < whole.size(); ++i)
    difference += std::abs(int(guint8(cached[i])) - int(guint8(whole[i])));
  EXPECT_LT(difference / double(whole.size()), 20) << "of 255, in the mean";
}

TEST(Frames, KeepTheirMetaThroughConversion) {
  Pipeline pipeline(stub_source("") + "seed=3 ! videoconvertscale ! video/x-raw,format=RGB,width=100" +
                    kSink);
  pipeline.run();
  ASSERT_EQ(pipeline.samples().size(), 9u);
  EXPECT_EQ(meta_of(pipeline.samples().back().get()).frame, 8);
}

TEST(Frames, CanBeChangedInPlaceWithoutACopy) {
  Pipeline pipeline(stub_source("") + "num-frames=5 ! fakesink");
  const Ptr<GstPad> pad(gst_element_get_static_pad(pipeline.find("src").get(), "src"));
  int writable = 0;
  gst_pad_add_probe(
      pad.get(), GST_PAD_PROBE_TYPE_BUFFER,
      [](GstPad *, GstPadProbeInfo *info, gpointer count) {
        *static_cast<int *>(count) += gst_buffer_is_all_memory_writable(gst_pad_probe_info_get_buffer(info));
        return GST_PAD_PROBE_OK;
      },
      &writable, nullptr);
  pipeline.run();
  EXPECT_EQ(writable, 5);
}

TEST(Frames, OutliveTheElement) {
  std::vector<Ptr<GstSample>> kept;
  {
    Pipeline pipeline(kSmallSource + kSmallCaps + kSink);
    pipeline.run();
    for (const auto &sample : pipeline.samples()) kept.emplace_back(gst_sample_ref(sample.get()));
  }
  ASSERT_EQ(kept.size(), 5u);
  for (const auto &sample : kept) EXPECT_FALSE(bytes(sample.get()).empty());
}

TEST(Clips, DefaultLengthIsTheCheckpointsOwn) {
  Pipeline pipeline("wansrc device=cpu steps=1" + kSmallCaps + kSink);
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 33u);
}

TEST(Clips, EndlessOnesEndByNumBuffers) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 num-buffers=50" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 50u);
}

TEST(Clips, NewPropertiesTakeEffectAtTheNextOne) {
  // One chunk in the queue and a sink that is not yet asked hold the worker in an early clip.
  Pipeline pipeline(stub_source("first") +
                    "seed=5 num-clips=200 num-frames=1 queue-size=1 ! "
                    "appsink name=sink sync=false wait-on-eos=false max-buffers=1");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  g_object_set(pipeline.find("src").get(), "seed", gint64(100), "prompt", "second", nullptr);
  const Ptr<GstElement> sink = pipeline.find("sink");
  std::vector<guint64> seeds;
  while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get())))
    seeds.push_back(meta_of(Ptr<GstSample>(sample).get()).seed);
  ASSERT_EQ(seeds.size(), 200u);
  EXPECT_EQ(seeds.front(), 5u);
  EXPECT_GT(seeds.back(), 100u);
  EXPECT_TRUE(std::find(seeds.begin(), seeds.end(), 100u) != seeds.end());
}

TEST(Seed, IsAVideo) {
  const std::string rest =
      "num-frames=5 steps=2 prompt=\"a red circle\"" + kSmallCaps + ",format=RGB" + kSink;
  const std::string one = video_of("wansrc device=cpu seed=1 " + rest);
  EXPECT_FALSE(one.empty());
  EXPECT_EQ(one, video_of("wansrc device=cpu seed=1 " + rest));
  EXPECT_NE(one, video_of("wansrc device=cpu seed=2 " + rest));
}

TEST(Seed, RandomOneCanBeReadAndUsedAgain) {
  const std::string rest = " num-frames=5 steps=1" + kSmallCaps + ",format=RGB" + kSink;
  Pipeline pipeline("wansrc name=src device=cpu seed=-1" + rest);
  pipeline.run();
  guint64 seed = 0;
  ASSERT_TRUE(gst_structure_get_uint64(pipeline.stats().get(), "seed", &seed));
  EXPECT_EQ(meta_of(pipeline.samples().front().get()).seed, seed);
  std::string video;
  for (const auto &sample : pipeline.samples()) video += bytes(sample.get());
  EXPECT_EQ(video, video_of("wansrc device=cpu seed=" + std::to_string(seed) + rest));
}

TEST(Seed, NextClipIsTheNextSeedsVideo) {
  const std::string rest = " device=cpu num-frames=5 steps=1" + kSmallCaps + ",format=RGB" + kSink;
  const std::string both = video_of("wansrc seed=7 num-clips=2" + rest);
  EXPECT_EQ(both, video_of("wansrc seed=7" + rest) + video_of("wansrc seed=8" + rest));
}

gint64 duration(GstElement *element, GstFormat format) {
  gint64 value = -2;
  return gst_element_query_duration(element, format, &value) ? value : -3;
}

TEST(Queries, Duration) {
  Pipeline pipeline(stub_source("") + "num-clips=3" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  EXPECT_LT(duration(source.get(), GST_FORMAT_TIME), 0) << "before the rate is known";
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_DEFAULT), 27);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_TIME), gint64(27 * GST_SECOND / 25));
  EXPECT_EQ(duration(pipeline.get(), GST_FORMAT_TIME), gint64(27 * GST_SECOND / 25));
}

TEST(Queries, DurationOfEndlessClipsIsUnknown) {
  Pipeline pipeline(stub_source("") + "num-clips=-1" + " ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_TIME), -1);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_DEFAULT), -1);
}

TEST(Queries, NotSeekable) {
  Pipeline pipeline(stub_source("") + kSink);
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstQuery> query(gst_query_new_seeking(GST_FORMAT_TIME));
  ASSERT_TRUE(gst_element_query(pipeline.find("src").get(), query.get()));
  gboolean seekable = TRUE;
  gst_query_parse_seeking(query.get(), nullptr, &seekable, nullptr, nullptr);
  EXPECT_FALSE(seekable);
  EXPECT_FALSE(gst_element_seek_simple(pipeline.get(), GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
}

TEST(Queries, NotLive) {
  Pipeline pipeline(stub_source("") + kSink);
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS) << "a live source has no preroll";
  const Ptr<GstQuery> query(gst_query_new_latency());
  ASSERT_TRUE(gst_element_query(pipeline.find("src").get(), query.get()));
  gboolean live = TRUE;
  gst_query_parse_latency(query.get(), &live, nullptr, nullptr);
  EXPECT_FALSE(live);
}

TEST(Queries, DurationCountsQueuedClips) {
  Pipeline pipeline(stub_source("") + "num-clips=3 queue-size=1" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstStructure> settings(gst_structure_new("settings", "num-frames", G_TYPE_INT, 101, nullptr));
  for (int i = 0; i < 4; ++i) {
    guint accepted = 0;
    g_signal_emit_by_name(source.get(), "enqueue", "long", settings.get(), &accepted);
    ASSERT_TRUE(accepted);
  }
  const gint64 announced = duration(source.get(), GST_FORMAT_DEFAULT);
  pipeline.set_state(GST_STATE_PLAYING);
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_DEFAULT), announced);
  EXPECT_GE(announced, 9 + 4 * 101) << "the worker may have begun its second clip before";
  guint64 sent = 0;
  gst_structure_get_uint64(pipeline.stats().get(), "frames-pushed", &sent);
  EXPECT_EQ(gint64(sent), announced);
  gint64 position = 0;
  ASSERT_TRUE(gst_element_query_position(source.get(), GST_FORMAT_DEFAULT, &position));
  EXPECT_EQ(position, announced);
}

TEST(Queries, DurationCountsWhatFadesOnce) {
  Pipeline pipeline(kSmallSource + "num-clips=3 transition=crossfade transition-frames=2" + kSmallCaps +
                    kSink);
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const gint64 frames = duration(pipeline.find("src").get(), GST_FORMAT_DEFAULT);
  pipeline.run();
  EXPECT_EQ(frames, 3 * 5 - 2 * 2);
  EXPECT_EQ(pipeline.samples().size(), size_t(frames));
}

TEST(Queries, AChangedDurationIsAnnounced) {
  Pipeline pipeline(stub_source("chunk=10") + "! fakesink sync=true");
  const Ptr<GstElement> source = pipeline.find("src");
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_DEFAULT), 9);
  gst_util_set_object_arg(G_OBJECT(source.get()), "prompts", "<one,two,three>");
  EXPECT_NE(pipeline.wait(GST_MESSAGE_DURATION_CHANGED), nullptr);
  EXPECT_EQ(duration(source.get(), GST_FORMAT_DEFAULT), 36);
}

TEST(Queries, PositionAndConversionsAreInFramesToo) {
  Pipeline pipeline(stub_source("") + "num-frames=33 ! video/x-raw,framerate=30000/1001" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  pipeline.set_state(GST_STATE_PLAYING);
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  gint64 frames = 0, time = 0;
  EXPECT_TRUE(gst_element_query_position(source.get(), GST_FORMAT_DEFAULT, &frames));
  EXPECT_EQ(frames, 33);
  for (const gint64 frame : {0, 1, 7, 100}) {
    EXPECT_TRUE(gst_element_query_convert(source.get(), GST_FORMAT_DEFAULT, frame, GST_FORMAT_TIME, &time));
    EXPECT_EQ(time, gint64(gst_util_uint64_scale(frame, 1001 * GST_SECOND, 30000)));
    EXPECT_TRUE(gst_element_query_convert(source.get(), GST_FORMAT_TIME, time, GST_FORMAT_DEFAULT, &frames));
    EXPECT_EQ(frames, frame);
  }
  EXPECT_TRUE(
      gst_element_query_convert(source.get(), GST_FORMAT_TIME, G_MAXINT64, GST_FORMAT_DEFAULT, &frames));
  EXPECT_GT(frames, 0);
}

TEST(Seek, SentToTheElementDoesNotStopIt) {
  Pipeline pipeline(stub_source("") +
                    "num-frames=33 ! appsink name=sink sync=false wait-on-eos=false max-buffers=1");
  const Ptr<GstElement> source = pipeline.find("src"), sink = pipeline.find("sink");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  for (const gint64 time : {gint64(0), gint64(GST_SECOND)}) {
    EXPECT_FALSE(gst_element_seek_simple(source.get(), GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, time));
    EXPECT_FALSE(gst_element_seek_simple(source.get(), GST_FORMAT_TIME, GST_SEEK_FLAG_NONE, time));
  }
  guint64 next = 0;
  while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get())))
    EXPECT_EQ(GST_BUFFER_OFFSET(gst_sample_get_buffer(Ptr<GstSample>(sample).get())), next++);
  EXPECT_EQ(next, 33u);
}

TEST(Flush, WithoutAStartDoesNotHoldTheElement) {
  Pipeline pipeline(stub_source("") + " ! fakesink sync=true");
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  // The streaming thread waits in the sink now, and would never let go.
  EXPECT_FALSE(gst_element_send_event(pipeline.find("src").get(), gst_event_new_flush_stop(TRUE)));
  pipeline.set_state(GST_STATE_PLAYING);
  EXPECT_TRUE(pipeline.wait(GST_MESSAGE_EOS));
}

TEST(Seek, BeforeTheStartMaySetTheEnd) {
  Pipeline pipeline(stub_source("") + "num-clips=-1" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  pipeline.reach(GST_STATE_READY);
  const auto seek = [&](gdouble rate, gint64 start) {
    return gst_element_seek(source.get(), rate, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, GST_SEEK_TYPE_SET,
                            start, GST_SEEK_TYPE_SET, gint64(GST_SECOND));
  };
  EXPECT_FALSE(seek(2, 0));
  EXPECT_FALSE(seek(1, GST_SECOND / 2));
  EXPECT_TRUE(seek(1, 0));
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 25u);
}

// An editor's timeline waits for ever for a seek that is refused.
TEST(Seek, InATimelineIsAnErrorFromTheStart) {
  GType type = g_type_from_name("NleObject");
  if (!type) {
    GTypeQuery bin;
    g_type_query(GST_TYPE_BIN, &bin);
    type = g_type_register_static_simple(GST_TYPE_BIN, "NleObject", bin.class_size, nullptr,
                                         bin.instance_size, nullptr, GTypeFlags(0));
  }
  Pipeline pipeline("fakesink fakesink");  // a pipeline only where there are two
  auto *timeline = GST_ELEMENT(g_object_new(type, nullptr));
  gst_bin_add(GST_BIN(timeline), gst_parse_launch(stub_source("clip=1000000").c_str(), nullptr));
  gst_bin_add(GST_BIN(pipeline.get()), timeline);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GST_MESSAGE_ERROR), nullptr);
  EXPECT_NE(first_error(pipeline)->message.find("timeline"), std::string::npos);
}

std::string stream_id(const std::string &settings) {
  Pipeline pipeline(stub_source("a \xc3\xa4 % /? prompt") + settings + kSink);
  const Ptr<GstElement> sink = pipeline.find("sink");
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstSample> sample(gst_app_sink_pull_sample(GST_APP_SINK(sink.get())));
  gchar *id = gst_pad_get_stream_id(Ptr<GstPad>(gst_element_get_static_pad(sink.get(), "sink")).get());
  const std::string result = id ? id : "";
  g_free(id);
  return result;
}

TEST(StreamId, IsTheSameFromRunToRun) {
  EXPECT_FALSE(stream_id("").empty());
  EXPECT_EQ(stream_id(""), stream_id(""));
  EXPECT_EQ(stream_id("is-live=true"), stream_id("is-live=true"));
}

TEST(Frames, AreNeverDecodedAfterTheirTime) {
  for (const char *live : {"", "is-live=true "}) {
    Pipeline pipeline(stub_source("chunk=20") + live + "do-timestamp=true num-buffers=9" + kSink);
    pipeline.run();
    ASSERT_EQ(pipeline.samples().size(), 9u);
    for (const auto &sample : pipeline.samples()) {
      GstBuffer *buffer = gst_sample_get_buffer(sample.get());
      EXPECT_EQ(GST_BUFFER_DTS(buffer), GST_BUFFER_PTS(buffer)) << live;
    }
  }
}

TEST(IsLive, CountsForTheNextRun) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 ! appsink name=sink sync=false max-buffers=1");
  const Ptr<GstElement> source = pipeline.find("src"), sink = pipeline.find("sink");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  g_object_set(source.get(), "is-live", TRUE, nullptr);
  for (int i = 0; i < 50; ++i)
    ASSERT_TRUE(Ptr<GstSample>(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 60 * GST_SECOND)));
  gboolean live = FALSE;
  g_object_get(source.get(), "is-live", &live, nullptr);
  EXPECT_TRUE(live);
  pipeline.reach(GST_STATE_READY);
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_NO_PREROLL);
}

struct Seen {
  std::vector<std::string> titles, comments, encoders;
  std::vector<GstEventType> order;
};

GstPadProbeReturn see(GstPad *, GstPadProbeInfo *info, gpointer user) {
  auto &seen = *static_cast<Seen *>(user);
  if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
    seen.order.push_back(GST_EVENT_UNKNOWN);
    return GST_PAD_PROBE_OK;
  }
  GstEvent *event = gst_pad_probe_info_get_event(info);
  seen.order.push_back(GST_EVENT_TYPE(event));
  if (GST_EVENT_TYPE(event) != GST_EVENT_TAG) return GST_PAD_PROBE_OK;
  GstTagList *tags = nullptr;
  gst_event_parse_tag(event, &tags);
  const auto add = [tags](std::vector<std::string> &list, const char *tag) {
    const gchar *text = nullptr;
    if (gst_tag_list_peek_string_index(tags, tag, 0, &text)) list.push_back(text);
  };
  add(seen.titles, GST_TAG_TITLE);
  add(seen.comments, GST_TAG_COMMENT);
  add(seen.encoders, GST_TAG_ENCODER);
  return GST_PAD_PROBE_OK;
}

// Lines of the category wansrc, by level.
struct Logged {
  std::mutex mutex;
  std::map<GstDebugLevel, std::vector<std::string>> lines;
  bool has(GstDebugLevel level, const std::string &part) {
    const std::lock_guard lock(mutex);
    return std::any_of(lines[level].begin(), lines[level].end(),
                       [&](const std::string &line) { return line.find(part) != std::string::npos; });
  }
};

TEST(Log, TellsTheStoryOfARun) {
  Logged logged;
  const GstLogFunction log = [](GstDebugCategory *category, GstDebugLevel level, const gchar *, const gchar *,
                                gint, GObject *object, GstDebugMessage *message, gpointer user) {
    auto &logged = *static_cast<Logged *>(user);
    const std::lock_guard lock(logged.mutex);
    if (object) logged.lines[level].push_back(gst_debug_message_get(message));
    EXPECT_STREQ(gst_debug_category_get_name(category), "wansrc");
  };
  Pipeline pipeline(stub_source("a red circle") + "seed=7 num-frames=5 num-clips=2 ! fakesink");
  gst_debug_add_log_function(log, &logged, nullptr);
  gst_debug_set_threshold_from_string("wansrc:LOG", TRUE);
  pipeline.run();
  gst_debug_set_threshold_from_string("", TRUE);
  gst_debug_remove_log_function(log);
  for (const char *part : {"device auto", "the model is not in memory yet", "frames of video/x-raw", "not copied"})
    EXPECT_TRUE(logged.has(GST_LEVEL_INFO, part)) << part;
  for (const char *part :
       {"clip 0 (id 0) begins: seed=7 num-frames=5 steps=4", "clip 0: step 4 of 4",
        "clip 1 (id 0) is on air at 0:00:00.200000000", "clip 1 (id 0) is done after 5 frames"})
    EXPECT_TRUE(logged.has(GST_LEVEL_DEBUG, part)) << part;
  EXPECT_EQ(logged.lines[GST_LEVEL_LOG].size(), 10u) << "a line a frame";
}

TEST(Tags, ComeBeforeEachClip) {
  Pipeline pipeline(stub_source("a red circle") + "seed=1 num-clips=2 num-frames=1 ! fakesink");
  const Ptr<GstPad> pad(gst_element_get_static_pad(pipeline.find("src").get(), "src"));
  Seen seen;
  gst_pad_add_probe(pad.get(),
                    GstPadProbeType(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM), see,
                    &seen, nullptr);
  pipeline.run();
  // The custom events are wan-clip and the force-key-unit event.
  const std::vector<GstEventType> expected = {GST_EVENT_STREAM_START,      GST_EVENT_CAPS,
                                              GST_EVENT_SEGMENT,           GST_EVENT_TAG,
                                              GST_EVENT_CUSTOM_DOWNSTREAM, GST_EVENT_CUSTOM_DOWNSTREAM,
                                              GST_EVENT_UNKNOWN,           GST_EVENT_TAG,
                                              GST_EVENT_CUSTOM_DOWNSTREAM, GST_EVENT_CUSTOM_DOWNSTREAM,
                                              GST_EVENT_UNKNOWN,           GST_EVENT_EOS};
  EXPECT_EQ(seen.order, expected);
  EXPECT_EQ(seen.titles, std::vector<std::string>(2, "a red circle"));
  ASSERT_EQ(seen.encoders.size(), 2u);
  EXPECT_TRUE(seen.encoders[0].starts_with("gst-wan "));
  ASSERT_EQ(seen.comments.size(), 2u);
  EXPECT_TRUE(seen.comments[0].starts_with("seed=1 "));
  EXPECT_TRUE(seen.comments[1].starts_with("seed=2 "));
}

TEST(Messages, LoadingIsCompleteBeforeTheFirstBuffer) {
  Pipeline pipeline(kSmallSource + kSmallCaps + " ! fakesink signal-handoffs=true name=sink");
  // The handoff posts a message, so that its place among the others is seen.
  const Ptr<GstElement> sink = pipeline.find("sink");
  g_signal_connect(sink.get(), "preroll-handoff",
                   G_CALLBACK(+[](GstElement *sink, GstBuffer *, GstPad *, gpointer) {
                     GstStructure *first = gst_structure_new_empty("first-buffer");
                     gst_element_post_message(sink, gst_message_new_element(GST_OBJECT(sink), first));
                   }),
                   nullptr);
  pipeline.run();
  std::vector<std::string> order;
  for (const GstMessage *message :
       pipeline.messages(GstMessageType(GST_MESSAGE_PROGRESS | GST_MESSAGE_ELEMENT))) {
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS) {
      GstProgressType type;
      gst_message_parse_progress(const_cast<GstMessage *>(message), &type, nullptr, nullptr);
      const std::string name = type == GST_PROGRESS_TYPE_START      ? "start"
                               : type == GST_PROGRESS_TYPE_CONTINUE ? "continue"
                               : type == GST_PROGRESS_TYPE_COMPLETE ? "complete"
                                                                    : "other";
      if (order.empty() || order.back() != name) order.push_back(name);
    } else if (gst_message_has_name(const_cast<GstMessage *>(message), "first-buffer")) {
      order.push_back("buffer");
    }
  }
  EXPECT_EQ(order, (std::vector<std::string>{"start", "continue", "complete", "buffer"}));
}

TEST(Messages, StepsAndTheTimeLeftAreToldBeforeTheFirstFrame) {
  Pipeline pipeline(stub_source("") + "steps=300 ! fakesink");
  pipeline.run();
  std::vector<std::string> texts;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_PROGRESS)) {
    gchar *text = nullptr;
    gst_message_parse_progress(const_cast<GstMessage *>(message), nullptr, nullptr, &text);
    texts.push_back(text);
    g_free(text);
  }
  ASSERT_EQ(texts.size(), 1u + 5 + 1 + 300 + 1);
  EXPECT_EQ(texts[2], "loading the model, 25 %, 1 s left");
  EXPECT_EQ(texts[6], "The model is loaded");
  EXPECT_EQ(texts[7], "step 1 of 300, 2 min 30 s left");  // the stub's steps take half a second
  EXPECT_EQ(texts[205], "step 199 of 300, 51 s left");
  EXPECT_EQ(texts[306], "step 300 of 300");
}

TEST(Messages, AreNoProgressWhereTheSourceIsLive) {
  Pipeline pipeline(stub_source("") + "is-live=true ! fakesink");
  pipeline.run();
  EXPECT_TRUE(pipeline.messages(GST_MESSAGE_PROGRESS).empty());
}

TEST(Messages, AFailureEndsTheProgress) {
  Pipeline pipeline(stub_source("invalid") + "! fakesink");
  pipeline.run();
  GstProgressType type = GST_PROGRESS_TYPE_START;
  gst_message_parse_progress(const_cast<GstMessage *>(pipeline.messages(GST_MESSAGE_PROGRESS).back()), &type,
                             nullptr, nullptr);
  EXPECT_EQ(type, GST_PROGRESS_TYPE_ERROR);
}

TEST(Messages, ProgressCoversEveryStage) {
  Pipeline pipeline("wansrc device=cpu num-frames=9 steps=3 seed=11 num-clips=2" + kSmallCaps + "! fakesink");
  pipeline.run();
  std::set<std::string> stages;
  int denoised = 0, last_clip = -1;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    if (!gst_structure_has_name(structure, "wan-progress")) continue;
    gint clip = -1, step = -1, steps = -1;
    guint64 seed = 0;
    gdouble seconds = -1;
    ASSERT_TRUE(gst_structure_get(structure, "clip", G_TYPE_INT, &clip, "step", G_TYPE_INT, &step, "steps",
                                  G_TYPE_INT, &steps, "seed", G_TYPE_UINT64, &seed, "seconds", G_TYPE_DOUBLE,
                                  &seconds, nullptr));
    const std::string stage = gst_structure_get_string(structure, "stage");
    stages.insert(stage);
    EXPECT_EQ(seed, guint64(11 + clip));
    EXPECT_LE(step, steps);
    EXPECT_GE(seconds, 0);
    if (stage == "denoise") {
      EXPECT_EQ(steps, 3);
      denoised += step == steps;
    }
    EXPECT_GE(clip, last_clip);
    last_clip = clip;
  }
  EXPECT_EQ(stages, (std::set<std::string>{"decode", "denoise", "text"}));
  EXPECT_EQ(denoised, 2);
}

TEST(Queue, SlowSinkGetsEveryFrame) {
  Pipeline pipeline(kSmallSource + "num-frames=33 queue-size=1" + kSmallCaps +
                    " ! appsink name=sink sync=false wait-on-eos=false max-buffers=1");
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstElement> sink = pipeline.find("sink");
  guint64 next = 0;
  guint highest = 0;
  while (GstSample *pulled = gst_app_sink_pull_sample(GST_APP_SINK(sink.get()))) {
    const Ptr<GstSample> sample(pulled);
    EXPECT_EQ(GST_BUFFER_OFFSET(gst_sample_get_buffer(sample.get())), next++);
    guint level = 0;
    gst_structure_get_uint(pipeline.stats().get(), "queue-level", &level);
    highest = std::max(highest, level);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_EQ(next, 33u);
  EXPECT_LE(highest, 1u);
}

TEST(Elements, TwoAtOnceKeepApart) {
  const std::string rest = " device=cpu num-frames=5 steps=2" + kSmallCaps +
                           ",format=RGB ! appsink sync=false wait-on-eos=false name=";
  const std::string one = video_of("wansrc seed=1" + rest + "sink");
  const std::string two = video_of("wansrc seed=2" + rest + "sink");
  std::string first, second;
  std::thread other([&] { first = video_of("wansrc seed=1" + rest + "sink"); });
  second = video_of("wansrc seed=2" + rest + "sink");
  other.join();
  EXPECT_EQ(first, one);
  EXPECT_EQ(second, two);
}

}  // namespace
}  // namespace wan::test
