// What the next clip is: the queue, skipping, timed prompts, URIs.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmock/gmock.h>
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/base/gstbasesrc.h>
#include <gst/video/video.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "clips.h"

namespace wan::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<std::string> warnings(const Pipeline &pipeline) {
  std::vector<std::string> texts;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_WARNING)) {
    GError *warning = nullptr;
    gst_message_parse_warning(const_cast<GstMessage *>(message), &warning, nullptr);
    texts.push_back(warning->message);
    g_error_free(warning);
  }
  return texts;
}

std::vector<Shown> clips_of(const std::string &launch) {
  Pipeline pipeline(launch);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  return clips(pipeline);
}

std::vector<std::string> prompts(const Pipeline &pipeline) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, GST_TYPE_ARRAY);
  g_object_get_property(G_OBJECT(pipeline.find("src").get()), "prompts", &value);
  std::vector<std::string> result;
  for (guint i = 0; i < gst_value_array_get_size(&value); ++i)
    result.push_back(g_value_get_string(gst_value_array_get_value(&value, i)));
  g_value_unset(&value);
  return result;
}

// The comments among the tags of a run, one for each clip.
std::vector<std::string> clip_comments(const Pipeline &pipeline) {
  std::vector<std::string> comments;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_TAG)) {
    GstTagList *tags = nullptr;
    gchar *comment = nullptr;
    gst_message_parse_tag(const_cast<GstMessage *>(message), &tags);
    if (gst_tag_list_get_string(tags, GST_TAG_COMMENT, &comment)) comments.push_back(comment);
    g_free(comment);
    gst_tag_list_unref(tags);
  }
  return comments;
}

const std::string kClip = stub_source("own") + "seed=7 num-frames=5 ";

TEST(Queue, ComesBeforeThePrompt) {
  EXPECT_THAT(clips_of(kClip + "num-clips=3 prompts=<a,b> ! fakesink"),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 5 * kFrame}, Shown{"own", 9, 10 * kFrame}));
}

TEST(Queue, IsPlayedToItsEnd) {
  EXPECT_THAT(clips_of(kClip + "num-clips=1 prompts=<a,b> ! fakesink"),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 5 * kFrame}));
}

TEST(Queue, IsReadAsItStands) {
  Pipeline pipeline(stub_source("own") +
                    "num-frames=25 num-clips=-1 queue-size=1 prompts=<a,b,c,d,e> ! fakesink");
  EXPECT_THAT(prompts(pipeline), ElementsAre("a", "b", "c", "d", "e"));
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  while (prompts(pipeline).size() > 4) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_THAT(prompts(pipeline), ElementsAre("b", "c", "d", "e")) << "a is being made";
  g_object_set(pipeline.find("src").get(), "num-frames", 9, nullptr);
  gst_util_set_object_arg(G_OBJECT(pipeline.find("src").get()), "prompts", "<x>");
  EXPECT_TRUE(enqueue(pipeline, "y"));
  EXPECT_THAT(prompts(pipeline), ElementsAre("x", "y"));
  g_signal_emit_by_name(pipeline.find("src").get(), "clear");
  EXPECT_THAT(prompts(pipeline), ElementsAre());
}

TEST(Queue, IsTheSameInEveryRun) {
  Pipeline pipeline(kClip + "prompts=<a,b> ! fakesink");
  pipeline.run();
  pipeline.run();
  EXPECT_EQ(clips(pipeline).size(), 4u);
  EXPECT_THAT(prompts(pipeline), ElementsAre("a", "b"));
}

TEST(Enqueue, TakesSettings) {
  Pipeline pipeline(kClip + "! fakesink");
  EXPECT_TRUE(enqueue(pipeline, "a",
                      "settings, seed=(int)100, num-frames=(int)9, guidance-scale=2, "
                      "scheduler=euler, steps=(int)2"));
  EXPECT_TRUE(enqueue(pipeline, "b", "settings, negative-prompt=(string)ugly"));
  EXPECT_TRUE(enqueue(pipeline, nullptr));
  pipeline.run();
  EXPECT_THAT(clips(pipeline),
              ElementsAre(Shown{"a", 100, 0}, Shown{"b", 7, 9 * kFrame}, Shown{"own", 8, 14 * kFrame}));
  const std::vector<std::string> comments = clip_comments(pipeline);
  ASSERT_EQ(comments.size(), 3u);
  EXPECT_THAT(comments[0], HasSubstr("seed=100 num-frames=9 steps=2 guidance-scale=2 guidance-scale-2=2 "));
  EXPECT_THAT(comments[1], HasSubstr("negative-prompt=\"ugly\""));
}

TEST(Enqueue, TakesSigmasAndCache) {
  Pipeline pipeline(kClip + "sigmas=<1,0.5> cache=first-block ! fakesink");
  EXPECT_TRUE(enqueue(pipeline, "a", "settings, sigmas=<1, 0.25>, cache-threshold=0.5"));
  EXPECT_TRUE(enqueue(pipeline, "b", "settings, steps=(int)3, cache=none"));
  EXPECT_TRUE(enqueue(pipeline, "c"));
  pipeline.run();
  const std::vector<std::string> comments = clip_comments(pipeline);
  ASSERT_EQ(comments.size(), 3u);
  EXPECT_THAT(comments[0], HasSubstr(" sigmas=\"<1,0.25>\" cache=first-block cache-threshold=0.5 prompt="));
  EXPECT_THAT(comments[1], HasSubstr("steps=3"));
  EXPECT_THAT(comments[1], HasSubstr("scheduler=euler prompt=")) << "steps stand over the element's sigmas";
  EXPECT_THAT(comments[2], HasSubstr(" sigmas=\"<1,0.5>\" cache=first-block cache-threshold=0.05 prompt="));
}

TEST(Enqueue, RefusesWhatCannotBe) {
  for (const auto &[settings, reason] :
       {std::pair{"settings, sead=(int)1", "A clip has no setting sead."},
        {"settings, steps=(int)5000", "5000 is not a valid value for steps."},
        {"settings, steps=(string)many", "is not a valid value for steps."},
        {"settings, model=(string)other", "A clip has no setting model."},
        {"settings, num-buffers=(int)5", "A clip has no setting num-buffers."},
        {"settings, typefind=(boolean)true", "A clip has no setting typefind."},
        {"settings, do-timestamp=(boolean)true", "A clip has no setting do-timestamp."},
        {"settings, sigmas=<1, 1.5>", "is not a valid value for sigmas."},
        {"settings, sigmas=<1, (string)half>", "is not a valid value for sigmas."},
        {"settings, cache=(string)all", "is not a valid value for cache."},
        {"settings, scheduler=(string)magic", "is not a valid value for scheduler."},
        {"settings, scheduler=(int)7", "is not a valid value for scheduler."},
        {"settings, steps=4.7", "4.700000 is not a valid value for steps."},
        {"settings, steps=(gint64)4294967300", "4294967300 is not a valid value for steps."},
        {"settings, steps=(boolean)true", "TRUE is not a valid value for steps."},
        {"settings, seed=(string)NULL", "is not a valid value for seed."},
        {"settings, seed=(guint64)18446744073709551615", "is not a valid value for seed."},
        {"settings, seed=(string)99999999999999999999", "is not a valid value for seed."},
        {"settings, flow-shift=0.0", "flow-shift must be"},
        {"settings, guidance-scale=-0.5", "guidance-scale must be"},
        {"settings, sigmas=<0.2, 0.9>", "sigmas must fall"}}) {
    Pipeline pipeline(kClip + "! fakesink");
    EXPECT_FALSE(enqueue(pipeline, "a", settings));
    const GstMessage *message = pipeline.wait(GST_MESSAGE_WARNING);
    ASSERT_NE(message, nullptr);
    GError *error = nullptr;
    gst_message_parse_warning(const_cast<GstMessage *>(message), &error, nullptr);
    EXPECT_THAT(error->message, HasSubstr(reason));
    g_error_free(error);
    EXPECT_THAT(prompts(pipeline), ElementsAre());
  }
}

TEST(Enqueue, RefusesWhatTheCheckpointCannotMake) {
  Pipeline pipeline(kClip + "num-clips=-1 queue-size=1 ! fakesink sync=true");
  EXPECT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(enqueue(pipeline, "refused"), 0u);
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(enqueue(pipeline, "refused"), 0u);
  EXPECT_EQ(enqueue(pipeline, "\xff"), 0u);
  while (warnings(pipeline).size() < 3) ASSERT_NE(pipeline.wait(GST_MESSAGE_WARNING), nullptr);
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("The stub cannot make this."),
                                              HasSubstr("The stub cannot make this."), HasSubstr("UTF-8")));
}

TEST(Enqueue, GivesAnIdThatMessagesAndFramesCarry) {
  Pipeline pipeline(kClip + "num-clips=3 ! appsink name=sink sync=false wait-on-eos=false");
  const guint first = enqueue(pipeline, "a"), second = enqueue(pipeline, "b");
  EXPECT_NE(first, 0u);
  EXPECT_NE(first, second);
  pipeline.run();
  std::vector<guint> shown, sent;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    if (!gst_structure_has_name(structure, "wan-clip")) continue;
    EXPECT_TRUE(gst_structure_get_uint(structure, "id", &shown.emplace_back()));
  }
  for (const auto &sample : pipeline.samples()) {
    GstCustomMeta *meta = gst_buffer_get_custom_meta(gst_sample_get_buffer(sample.get()), "GstWanMeta");
    guint id = 0;
    EXPECT_TRUE(gst_structure_get_uint(gst_custom_meta_get_structure(meta), "id", &id));
    if (sent.empty() || sent.back() != id) sent.push_back(id);
  }
  EXPECT_THAT(shown, ElementsAre(first, second, 0u));
  EXPECT_EQ(sent, shown);
}

TEST(Enqueue, PlaysAClipOnce) {
  Pipeline pipeline(kClip + "num-clips=0 prompts=<always> ! fakesink");
  enqueue(pipeline, "once");
  pipeline.run();
  pipeline.run();
  enqueue(pipeline, "later");
  EXPECT_THAT(prompts(pipeline), ElementsAre("always", "later"));
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("always", "once", "always", "later"));
}

TEST(Enqueue, KeepsForTheNextRunWhatWasNotBegun) {
  Pipeline pipeline(stub_source("clip=60000") + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  enqueue(pipeline, "waits");
  pipeline.reach(GST_STATE_READY);
  enqueue(pipeline, "newer");
  EXPECT_THAT(prompts(pipeline), ElementsAre("waits", "newer"));
}

TEST(Settings, NumberOfFramesCountsForTheNextRun) {
  Pipeline pipeline(stub_source("chunk=1") + "num-frames=5 num-clips=3 queue-size=1" + kSink);
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  g_object_set(pipeline.find("src").get(), "num-frames", 21, nullptr);
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 15u);
}

TEST(Settings, StayAsTheyWereWhereTheyCannotBeWhilePlaying) {
  Pipeline pipeline(kClip + "num-clips=-1 flow-shift=3 sigmas=<1,0.5> ! fakesink sync=true");
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstElement> source = pipeline.find("src");
  g_object_set(source.get(), "flow-shift", 0.0, "prompt", "refused", nullptr);
  gst_util_set_object_arg(G_OBJECT(source.get()), "sigmas", "<0.5,0.5>");
  while (warnings(pipeline).size() < 3) ASSERT_NE(pipeline.wait(GST_MESSAGE_WARNING), nullptr);
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("flow-shift stays as it was"),
                                              HasSubstr("prompt stays as it was: The stub"),
                                              HasSubstr("sigmas stays as it was: sigmas must fall")));
  double shift = 0;
  gchar *prompt = nullptr;
  g_object_get(source.get(), "flow-shift", &shift, "prompt", &prompt, nullptr);
  EXPECT_EQ(shift, 3);
  EXPECT_STREQ(prompt, "own");
  g_free(prompt);
}

// ---- what becomes of a clip

// "done 1", "skipped 2": how clips have ended, and their ids.
std::vector<std::string> ends(const Pipeline &pipeline) {
  std::vector<std::string> result;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    const std::string name = gst_structure_get_name(structure);
    if (name != "wan-clip-done" && name != "wan-clip-skipped" && name != "wan-clip-failed") continue;
    guint id = 0;
    EXPECT_TRUE(gst_structure_get_uint(structure, "id", &id));
    result.push_back(name.substr(9) + " " + std::to_string(id));
  }
  return result;
}

gboolean remove_clip(const Pipeline &pipeline, guint id) {
  gboolean removed = FALSE;
  g_signal_emit_by_name(pipeline.find("src").get(), "remove", id, &removed);
  return removed;
}

TEST(Settings, OfTheNextRunDoNotCountInThisOne) {
  Pipeline pipeline(stub_source("own") +
                    "num-clips=-1 transition=crossfade transition-frames=2 ! fakesink sync=true");
  EXPECT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstElement> source = pipeline.find("src");
  g_object_set(source.get(), "continuity", 1, "prompt", "second", nullptr);
  EXPECT_NE(enqueue(pipeline, "third"), 0u);
  gchar *prompt = nullptr;
  g_object_get(source.get(), "prompt", &prompt, nullptr);
  EXPECT_STREQ(prompt, "second");
  g_free(prompt);
}

TEST(Ends, OfEveryClipAreToldInOrder) {
  Pipeline pipeline(kClip + "num-clips=3 ! fakesink");
  enqueue(pipeline, "a");
  enqueue(pipeline, "invalid");
  pipeline.run();
  EXPECT_THAT(ends(pipeline), testing::UnorderedElementsAre("done 1", "failed 2", "done 0"));
  int frames = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    int number = 0;
    if (gst_structure_has_name(structure, "wan-clip-done") &&
        gst_structure_get_int(structure, "frames", &number))
      frames += number;
  }
  EXPECT_EQ(frames, 10);
}

TEST(Ends, AreAfterTheLastFrame) {
  Pipeline pipeline(kClip + "! fakesink name=sink signal-handoffs=true");
  g_signal_connect(pipeline.find("sink").get(), "handoff",
                   G_CALLBACK(+[](GstElement *sink, GstBuffer *, GstPad *, gpointer) {
                     gst_element_post_message(
                         sink, gst_message_new_element(GST_OBJECT(sink), gst_structure_new_empty("frame")));
                   }),
                   nullptr);
  pipeline.run();
  int frames = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    if (gst_message_has_name(const_cast<GstMessage *>(message), "frame")) ++frames;
    // The probe is before the sink.
    if (gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip-done")) {
      EXPECT_GE(frames, 4);
    }
  }
  EXPECT_EQ(ends(pipeline).size(), 1u);
}

TEST(Ends, OfASkippedClipIsToldOnce) {
  Pipeline pipeline(kClip + "num-clips=0 ! fakesink");
  enqueue(pipeline, "clip=60000");
  enqueue(pipeline, "next");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(ends(pipeline), ElementsAre("skipped 1", "done 2"));
}

TEST(Remove, TakesAClipOutOfTheQueueOnce) {
  Pipeline pipeline(kClip + "num-clips=0 ! fakesink");
  const guint first = enqueue(pipeline, "a"), second = enqueue(pipeline, "b"), third = enqueue(pipeline, "c");
  EXPECT_TRUE(remove_clip(pipeline, second));
  EXPECT_FALSE(remove_clip(pipeline, second));
  EXPECT_FALSE(remove_clip(pipeline, 0));
  EXPECT_FALSE(remove_clip(pipeline, 77));
  EXPECT_THAT(prompts(pipeline), ElementsAre("a", "c"));
  pipeline.run();
  EXPECT_FALSE(remove_clip(pipeline, first));
  EXPECT_THAT(ends(pipeline), ElementsAre("skipped 2", "done 1", "done " + std::to_string(third)));
}

TEST(Remove, CanBeWhileAnotherClipIsMade) {
  Pipeline pipeline(stub_source("clip=60000") + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  const guint id = enqueue(pipeline, "a");
  EXPECT_TRUE(remove_clip(pipeline, id));
  EXPECT_THAT(prompts(pipeline), ElementsAre());
}

TEST(Clear, TellsOfEveryClipThatIsDropped) {
  Pipeline pipeline(kClip + "! fakesink");
  enqueue(pipeline, "a");
  enqueue(pipeline, "b");
  g_signal_emit_by_name(pipeline.find("src").get(), "clear");
  const Ptr<GstElement> source = pipeline.find("src");
  enqueue(pipeline, "c");
  gst_util_set_object_arg(G_OBJECT(source.get()), "prompts", "<d>");
  pipeline.run();
  EXPECT_THAT(ends(pipeline), ElementsAre("skipped 1", "skipped 2", "skipped 3", "done 0"));
}

// ---- the settings in effect

TEST(ClipMessage, HasTheSettingsInEffect) {
  Pipeline pipeline(kClip + "guidance-scale=2 ! fakesink");
  enqueue(pipeline, "a", "settings, steps=3, sigmas=(double)<>, negative-prompt=ugly");
  pipeline.run();
  const GstStructure *clip = nullptr;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT))
    if (gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip"))
      clip = gst_message_get_structure(const_cast<GstMessage *>(message));
  ASSERT_NE(clip, nullptr);
  int steps = 0, num_frames = 0, width = 0, height = 0;
  double guidance = 0, guidance_2 = 0, shift = 0;
  guint64 seed = 0;
  EXPECT_TRUE(gst_structure_get(clip, "steps", G_TYPE_INT, &steps, "num-frames", G_TYPE_INT, &num_frames,
                                "width", G_TYPE_INT, &width, "height", G_TYPE_INT, &height, "guidance-scale",
                                G_TYPE_DOUBLE, &guidance, "guidance-scale-2", G_TYPE_DOUBLE, &guidance_2,
                                "flow-shift", G_TYPE_DOUBLE, &shift, "seed", G_TYPE_UINT64, &seed, nullptr));
  EXPECT_EQ(std::make_tuple(steps, num_frames, width, height), std::make_tuple(3, 5, 64, 48));
  EXPECT_EQ(std::make_tuple(guidance, guidance_2, shift), std::make_tuple(2., 2., 2.));
  EXPECT_EQ(seed, 7u);
  EXPECT_STREQ(gst_structure_get_string(clip, "scheduler"), "euler");
  EXPECT_STREQ(gst_structure_get_string(clip, "cache"), "none");
  EXPECT_STREQ(gst_structure_get_string(clip, "negative-prompt"), "ugly");
}

TEST(Statistics, HaveTheSettingsOfTheNewestClip) {
  Pipeline pipeline(kClip + "steps=3" + kSink);
  EXPECT_FALSE(gst_structure_has_field(pipeline.stats().get(), "settings"));
  pipeline.reach(GST_STATE_PAUSED);
  const Ptr<GstStructure> stats = pipeline.stats();
  const GValue *value = gst_structure_get_value(stats.get(), "settings");
  ASSERT_TRUE(value && GST_VALUE_HOLDS_STRUCTURE(value));
  int steps = 0;
  EXPECT_TRUE(gst_structure_get_int(gst_value_get_structure(value), "steps", &steps));
  EXPECT_EQ(steps, 3);
}

// ---- the beginning of a clip downstream

struct Heralds {
  std::vector<GstClockTime> clips, key_units, frames;  // timestamps; of frames, those behind the events
  bool heralded = false;
};

TEST(ClipEvent, GoesBeforeTheFirstFrameWithAKeyUnit) {
  Pipeline pipeline(kClip + "num-clips=3 ! fakesink");
  Heralds seen;
  const auto see = [](GstPad *, GstPadProbeInfo *info, gpointer user) {
    auto &seen = *static_cast<Heralds *>(user);
    if (info->type & GST_PAD_PROBE_TYPE_BUFFER) {
      if (std::exchange(seen.heralded, false))
        seen.frames.push_back(GST_BUFFER_PTS(gst_pad_probe_info_get_buffer(info)));
      return GST_PAD_PROBE_OK;
    }
    GstEvent *event = gst_pad_probe_info_get_event(info);
    if (GST_EVENT_TYPE(event) != GST_EVENT_CUSTOM_DOWNSTREAM) return GST_PAD_PROBE_OK;
    seen.heralded = true;
    GstClockTime time = GST_CLOCK_TIME_NONE;
    if (gst_event_has_name(event, "wan-clip")) {
      EXPECT_TRUE(gst_structure_get_clock_time(gst_event_get_structure(event), "pts", &time));
      seen.clips.push_back(time);
    } else if (gst_video_event_is_force_key_unit(event)) {
      gst_video_event_parse_downstream_force_key_unit(event, &time, nullptr, nullptr, nullptr, nullptr);
      seen.key_units.push_back(time);
    }
    return GST_PAD_PROBE_OK;
  };
  const Ptr<GstPad> pad(gst_element_get_static_pad(pipeline.find("src").get(), "src"));
  gst_pad_add_probe(pad.get(),
                    GstPadProbeType(GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM), see,
                    &seen, nullptr);
  pipeline.run();
  EXPECT_THAT(seen.clips, ElementsAre(0, 5 * kFrame, 10 * kFrame));
  EXPECT_EQ(seen.key_units, seen.clips);
  EXPECT_EQ(seen.frames, seen.clips);
}

TEST(Failure, OfAQueuedClipIsThatClipsOnly) {
  Pipeline pipeline(kClip + "is-live=true num-clips=-1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  for (const char *bad : {"out-of-memory", "invalid", "internal", "fails-at-the-end"}) {
    const guint id = enqueue(pipeline, bad);
    EXPECT_EQ(wait_for(pipeline, "wan-clip-failed", "id"), id) << bad;
  }
  const guint good = enqueue(pipeline, "good");
  while (wait_for(pipeline, "wan-clip", "id") != good) ASSERT_FALSE(first_error(pipeline));
  EXPECT_THAT(warnings(pipeline), testing::Contains(HasSubstr("could not be made: The stub failed.")));
}

TEST(Failure, OfTheOnlyClipsIsAnError) {
  EXPECT_EQ(error_of(stub_source("") + "num-clips=0 prompts=<out-of-memory,invalid> ! fakesink").message,
            "The stub failed.");
  EXPECT_EQ(error_of(stub_source("out-of-memory") + "num-clips=-1 ! fakesink").message, "The stub failed.");
  EXPECT_EQ(error_of(stub_source("device") + "is-live=true num-clips=-1 ! fakesink").message,
            "The stub failed.");
}

TEST(Failure, IsTriedAgainByALiveStreamThatNeverEnds) {
  Pipeline pipeline(stub_source("fails=1 live") + "is-live=true num-clips=-1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  wait_for(pipeline, "wan-clip", "id");
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("It is tried again in 1 s.")));
}

TEST(Failure, IsNotTheEndWhereMoreClipsCome) {
  Pipeline pipeline(stub_source("fails=1") + "num-frames=5 num-clips=2" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 5u);
}

TEST(Warnings, OfTheEngineReachTheApplication) {
  Pipeline pipeline(stub_source("warns") + "! fakesink");
  pipeline.run();
  EXPECT_THAT(warnings(pipeline), ElementsAre("The stub warns."));
}

TEST(Skip, EndsTheClipThatIsOnAir) {
  Pipeline pipeline(
      stub_source("own") +
      "seed=7 num-frames=401 queue-size=2 prompts=<a,b> num-clips=2 ! appsink name=sink sync=false "
      "max-buffers=1");
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> sink = pipeline.find("sink");
  std::vector<guint64> seeds;
  while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get()))) {
    guint8 byte = 0;
    gst_buffer_extract(gst_sample_get_buffer(Ptr<GstSample>(sample).get()), 0, &byte, 1);
    seeds.push_back(byte);
    if (seeds.size() == 10) g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  }
  const auto of_a = std::count(seeds.begin(), seeds.end(), 7),
             of_b = std::count(seeds.begin(), seeds.end(), 8);
  EXPECT_EQ(of_b, 401);
  EXPECT_GE(of_a, 10);
  EXPECT_LE(of_a, 10 + 4 + 4 + 2) << "it ends with its chunk; sink and queue hold a few more";
  EXPECT_EQ(size_t(of_a + of_b), seeds.size());
}

TEST(Skip, EndsTheClipThatIsBeingMadeWhenNoneIsOnAir) {
  Pipeline pipeline(stub_source("clip=1000000") + "seed=7 num-frames=5 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("denoise"), nullptr);
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr) << "it was the only one";
}

TEST(Skip, DoesNoHarmWhenThereIsNothing) {
  Pipeline pipeline(kClip + "! fakesink");
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  g_signal_emit_by_name(pipeline.find("src").get(), "clear");
  pipeline.run();
  EXPECT_EQ(clips(pipeline).size(), 1u);
}

const std::string kStubFade = "num-frames=25 transition=crossfade transition-frames=2 ";

// The newest clip that is made, waited for until it is this one or a long time has passed.
int wait_for_clip(const Pipeline &pipeline, int clip) {
  int newest = -1;
  for (int i = 0; i < 1000 && newest < clip; ++i) {
    gst_structure_get_int(pipeline.stats().get(), "clip", &newest);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return newest;
}

TEST(Enqueue, KeepsForTheNextRunWhatWasChosenForACrossfade) {
  Pipeline pipeline(stub_source("own") + kStubFade + "queue-size=5 ! fakesink");
  EXPECT_TRUE(enqueue(pipeline, "first"));
  EXPECT_TRUE(enqueue(pipeline, "second"));
  EXPECT_TRUE(enqueue(pipeline, "third"));
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  for (int i = 0; i < 1000 && prompts(pipeline).size() > 1; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_THAT(prompts(pipeline), ElementsAre("third")) << "the second one is chosen, but waits for room";
  EXPECT_EQ(wait_for_clip(pipeline, 0), 0);
  EXPECT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_THAT(prompts(pipeline), ElementsAre("second", "third"));
}

// A file of subtitles, and the tail of a launch line that reads it.
class Script {
 public:
  explicit Script(const std::string &text) {
    const int file = g_file_open_tmp("wan-XXXXXX.srt", &path_, nullptr);
    EXPECT_GE(file, 0);
    close(file);
    std::ofstream(path_) << text;
  }
  ~Script() {
    unlink(path_);
    g_free(path_);
  }
  std::string into(const std::string &element, const std::string &pad = "prompt_sink") const {
    return std::string(" filesrc location=") + path_ + " ! subparse ! " + element + "." + pad;
  }

 private:
  gchar *path_ = nullptr;
};

constexpr char kStory[] =
    "1\n00:00:00,000 --> 00:00:00,200\na boat\n\n"
    "2\n00:00:00,400 --> 00:00:01,000\na storm\n\n";

TEST(TimedPrompts, CutTheFilmAtTheirTimes) {
  const Script script(kStory);
  EXPECT_THAT(clips_of(stub_source("") + "seed=7 num-frames=25 ! fakesink" + script.into("src")),
              ElementsAre(Shown{"a boat", 7, 0}, Shown{"a storm", 8, 10 * kFrame}));
}

TEST(TimedPrompts, LastAsLongAsTheScript) {
  const Script script(kStory);
  Pipeline pipeline(stub_source("") + "seed=7 num-frames=9" + kSink + script.into("src"));
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 25u);
  EXPECT_THAT(clips(pipeline),
              ElementsAre(Shown{"a boat", 7, 0}, Shown{"a boat", 8, 5 * kFrame},
                          Shown{"a storm", 9, 10 * kFrame}, Shown{"a storm", 10, 18 * kFrame}));
}

TEST(TimedPrompts, PropertyPromptComesBeforeTheFirst) {
  const Script script("1\n00:00:00,200 --> 00:00:00,400\na boat\n\n");
  EXPECT_THAT(clips_of(stub_source("intro") + "seed=7 num-frames=25 ! fakesink" + script.into("src")),
              ElementsAre(Shown{"intro", 7, 0}, Shown{"a boat", 8, 5 * kFrame}));
}

TEST(TimedPrompts, WaitUntilTheNextIsKnown) {
  Pipeline pipeline(stub_source("") + "seed=7 num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> text = pipeline.find("text");
  gst_app_src_push_buffer(GST_APP_SRC(text.get()), text_buffer("one", 0, GST_CLOCK_TIME_NONE));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(clips(pipeline).empty());
  gst_app_src_push_buffer(GST_APP_SRC(text.get()), text_buffer("two", 3 * kFrame, GST_CLOCK_TIME_NONE));
  gst_app_src_end_of_stream(GST_APP_SRC(text.get()));
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(clips(pipeline), ElementsAre(Shown{"one", 7, 0}, Shown{"two", 8, 3 * kFrame}));
}

TEST(TimedPrompts, StopWhileWaiting) {
  Pipeline pipeline(stub_source("") + "num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  pipeline.wait(GST_MESSAGE_PROGRESS);
  EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
}

TEST(TimedPrompts, LiveDoesNotWait) {
  Pipeline pipeline(stub_source("own") + "is-live=true seed=7 num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  while (clips(pipeline).size() < 3) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_EQ(clips(pipeline)[0].prompt, "own");
  const Ptr<GstElement> text = pipeline.find("text");
  gst_app_src_push_buffer(GST_APP_SRC(text.get()), text_buffer("typed", 0, GST_CLOCK_TIME_NONE));
  while (clips(pipeline).back().prompt != "typed") ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  gst_app_src_end_of_stream(GST_APP_SRC(text.get()));
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr) << "the stream ends with the script";
}

TEST(TimedPrompts, ThatAreNoTextAreLeftOutWithAWarning) {
  Pipeline pipeline(stub_source("") + "num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> text = pipeline.find("text");
  const std::string nul("a\0b", 3);
  for (const auto &[prompt, start] : {std::pair{std::string("first"), 0},
                                      {"\xff\xfe", 5},
                                      {nul, 6},
                                      {std::string(1 << 20, 'x'), 7},
                                      {"last", 10}})
    gst_app_src_push_buffer(GST_APP_SRC(text.get()), text_buffer(prompt, start * kFrame, 5 * kFrame));
  gst_app_src_end_of_stream(GST_APP_SRC(text.get()));
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("not UTF-8"), HasSubstr("not UTF-8"),
                                              HasSubstr("more than 65536 bytes")));
  EXPECT_THAT(films(pipeline), ElementsAre("first", "last"));
}

TEST(TimedPrompts, ThatFailLeaveTheirTimeToTheOneBefore) {
  Pipeline pipeline(stub_source("") + "seed=7 num-frames=5" + kSink + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  for (const auto &[prompt, frame] : {std::pair{"a", 0}, {"out-of-memory", 10}, {"b", 20}})
    push_text(pipeline, prompt, frame * kFrame, 10 * kFrame);
  end_text(pipeline);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 30u);
  EXPECT_THAT(films(pipeline), ElementsAre("a", "b"));
  EXPECT_EQ(clips(pipeline).back().pts, 25 * kFrame);
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("could not be made")));
}

TEST(TimedPrompts, ThatFailForNowDoNotEndTheFilm) {
  Pipeline pipeline(stub_source("fails=1 before the first") + "num-frames=5" + kSink + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  push_text(pipeline, "a", 5 * kFrame, 5 * kFrame);
  end_text(pipeline);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(films(pipeline), ElementsAre("fails=1 before the first", "a"));
}

TEST(TimedPrompts, AreNotWaitedForByAClipThatIsSkipped) {
  Pipeline pipeline(stub_source("") + kStubFade + "queue-size=20 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  push_text(pipeline, "a", 0, 20 * kFrame);
  push_text(pipeline, "b", 20 * kFrame, 20 * kFrame);
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_EQ(wait_for_clip(pipeline, 0), 0);
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  EXPECT_GE(wait_for_clip(pipeline, 1), 1) << "the rest of a's time, without the text behind b";
}

TEST(TimedPrompts, KeepTheirTimesBehindASkippedClip) {
  Pipeline pipeline(stub_source("") + kStubFade + "queue-size=8 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  for (const auto &[prompt, frame] : {std::pair{"a", 0}, {"b", 20}, {"c", 40}})
    push_text(pipeline, prompt, frame * kFrame, 20 * kFrame);
  end_text(pipeline);
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  guint level = 0;
  for (int i = 0; i < 1000 && level < 8; ++i) {
    gst_structure_get_uint(pipeline.stats().get(), "queue-level", &level);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  ASSERT_EQ(level, 8u) << "the rest of a, and what b has so far";
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("a", "b", "c"));
  EXPECT_EQ(clips(pipeline).back().pts, 40 * kFrame);
}

TEST(TimedPrompts, AreTheSameInEveryRun) {
  const Script script(kStory);
  Pipeline pipeline(stub_source("") + "seed=7 num-frames=25 ! fakesink" + script.into("src"));
  for (int run = 0; run < 3; ++run) {
    pipeline.set_state(GST_STATE_PLAYING);
    ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
    EXPECT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  }
  const std::vector<Shown> shown = clips(pipeline);
  ASSERT_EQ(shown.size(), 6u);
  for (size_t i = 2; i < shown.size(); ++i) EXPECT_EQ(shown[i], shown[i - 2]);
}

TEST(TimedPrompts, GoOnBehindAnotherStream) {
  const Script first("1\n00:00:00,000 --> 00:00:00,200\na\n\n"),
      second("1\n00:00:00,000 --> 00:00:00,200\nb\n\n");
  EXPECT_THAT(clips_of(stub_source("") + "seed=7 num-frames=5 ! fakesink concat name=c ! src.prompt_sink" +
                       first.into("c", "sink_0") + second.into("c", "sink_1")),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 5 * kFrame}));
}

// A queue of one frame keeps the first cue's clips from ending before the others have come.
TEST(TimedPrompts, ComeInAnyOrder) {
  Pipeline pipeline(stub_source("") + "seed=7 num-frames=5 queue-size=1 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  for (const auto &[prompt, frame] : {std::pair{"a", 0}, {"c", 20}, {"b", 10}})
    push_text(pipeline, prompt, frame * kFrame, 10 * kFrame);
  end_text(pipeline);
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("a", "b", "c"));
  EXPECT_EQ(clips(pipeline).size(), 6u);
}

// A last prompt that lasts for ever makes clip after clip, as long as its properties say; times of centuries
// do not overflow.
TEST(TimedPrompts, MayLastForEver) {
  for (const guint64 duration :
       {guint64(G_MAXINT64), guint64(G_MAXINT64) + 5, guint64(18000000000000000000u)}) {
    Pipeline pipeline(stub_source("") + "num-frames=5 num-buffers=50 ! video/x-raw,framerate=2147483647/1" +
                      kSink + kText);
    pipeline.set_state(GST_STATE_PAUSED);
    push_text(pipeline, "one", 0, duration);
    push_text(pipeline, "two", duration, GST_SECOND);
    end_text(pipeline);
    pipeline.run();
    EXPECT_EQ(pipeline.samples().size(), 50u) << duration;
    EXPECT_EQ(clips(pipeline).size(), 10u) << duration;
  }
}

TEST(TimedPrompts, BeyondTheRoomForThemBlockWhoSendsThem) {
  Pipeline pipeline(stub_source("") + "! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> text = pipeline.find("text");
  g_object_set(text.get(), "max-buffers", guint64(0), "max-bytes", guint64(0), nullptr);
  constexpr int kCues = 70000;
  for (int i = 0; i < kCues; ++i) push_text(pipeline, "clip=600000", i * GST_SECOND, GST_SECOND);
  const auto waiting = [&text] {
    guint64 buffers = 0;
    g_object_get(text.get(), "current-level-buffers", &buffers, nullptr);
    return buffers;
  };
  while (waiting() > kCues - 65536) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_GE(waiting(), kCues - 65536 - 2u);
  EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
  EXPECT_EQ(gst_bus_pop_filtered(bus.get(), GST_MESSAGE_ERROR), nullptr);
}

TEST(TimedPrompts, BeyondTheRoomForThemThatTakeNoTimeAreLeftOut) {
  Pipeline pipeline(stub_source("") + "num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  g_object_set(pipeline.find("text").get(), "max-buffers", guint64(0), "max-bytes", guint64(0), nullptr);
  for (int i = 0; i < 70000; ++i) push_text(pipeline, "early", 0, kFrame);
  push_text(pipeline, "last", 0, kFrame);
  end_text(pipeline);
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(films(pipeline), ElementsAre("last"));
}

TEST(TimedPrompts, AreForgottenByAFlush) {
  Pipeline pipeline(stub_source("") + "num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> source = pipeline.find("src");
  const Ptr<GstPad> pad(gst_element_get_static_pad(source.get(), "prompt_sink"));
  push_text(pipeline, "a", 0, 5 * kFrame);
  push_text(pipeline, "b", 5 * kFrame, GST_CLOCK_TIME_NONE);
  while (clips(pipeline).empty()) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_TRUE(gst_pad_send_event(pad.get(), gst_event_new_flush_start()));
  EXPECT_TRUE(gst_pad_send_event(pad.get(), gst_event_new_flush_stop(FALSE)));
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  EXPECT_TRUE(gst_pad_send_event(pad.get(), gst_event_new_segment(&segment)));
  EXPECT_EQ(gst_pad_chain(pad.get(), text_buffer("c", 5 * kFrame, 5 * kFrame)), GST_FLOW_OK);
  EXPECT_TRUE(gst_pad_send_event(pad.get(), gst_event_new_eos()));
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(films(pipeline), ElementsAre("a", "c"));
}

// A gap may be of no time that counts; a segment may begin in the middle of a text.
TEST(TimedPrompts, MayHaveGapsAndSegmentsOfAnyKind) {
  Pipeline pipeline(stub_source("own") + "num-frames=5 num-clips=0 ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  const Ptr<GstPad> pad(gst_element_request_pad_simple(source.get(), "prompt_sink"));
  const Ptr<GstPad> from(gst_pad_new("text", GST_PAD_SRC));
  gst_object_ref_sink(from.get());
  gst_pad_set_active(from.get(), TRUE);
  ASSERT_EQ(gst_pad_link(from.get(), pad.get()), GST_PAD_LINK_OK);
  pipeline.set_state(GST_STATE_PLAYING);
  gst_pad_push_event(from.get(), gst_event_new_stream_start("text"));
  const Ptr<GstCaps> caps(gst_caps_from_string("text/x-raw,format=utf8"));
  gst_pad_push_event(from.get(), gst_event_new_caps(caps.get()));
  GstSegment segment;
  for (const GstFormat format : {GST_FORMAT_BYTES, GST_FORMAT_TIME}) {
    gst_segment_init(&segment, format);
    segment.start = format == GST_FORMAT_TIME ? 100 * GST_SECOND : 0;
    gst_pad_push_event(from.get(), gst_event_new_segment(&segment));
    const GstClockTime duration = format == GST_FORMAT_TIME ? 10 * GST_SECOND : GST_CLOCK_TIME_NONE - 1;
    gst_pad_push_event(from.get(), gst_event_new_gap(1, duration));
  }
  EXPECT_EQ(gst_pad_push(from.get(), text_buffer("over", 90 * GST_SECOND, GST_SECOND)), GST_FLOW_OK);
  EXPECT_EQ(gst_pad_push(from.get(), text_buffer("cut", 99 * GST_SECOND, GST_SECOND + 5 * kFrame)),
            GST_FLOW_OK);
  gst_pad_push_event(from.get(), gst_event_new_eos());
  ASSERT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_THAT(films(pipeline), ElementsAre("cut"));
  EXPECT_EQ(clips(pipeline).size(), 1u);
  gst_pad_unlink(from.get(), pad.get());
}

TEST(TimedPrompts, OfBytesAreShownFromNowOn) {
  const std::string bytes = " appsrc name=text caps=text/x-raw,format=utf8 ! src.prompt_sink";
  Pipeline pipeline(stub_source("none") + "is-live=true num-clips=-1 num-frames=5 ! fakesink sync=true" +
                    bytes);
  pipeline.set_state(GST_STATE_PLAYING);
  for (const char *prompt : {"none", "typed", "later"}) {
    if (std::string(prompt) != "none") push_text(pipeline, prompt, GST_CLOCK_TIME_NONE, GST_CLOCK_TIME_NONE);
    while (clips(pipeline).empty() || clips(pipeline).back().prompt != prompt)
      ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  }
}

TEST(TimedPrompts, OfBytesHaveAClipEachWhereNothingIsLive) {
  const std::string bytes = " appsrc name=text caps=text/x-raw,format=utf8 ! src.prompt_sink";
  Pipeline pipeline(stub_source("none") + "seed=7 num-frames=5 ! fakesink" + bytes);
  pipeline.set_state(GST_STATE_PAUSED);
  for (const char *prompt : {"a", "b", "c"})
    push_text(pipeline, prompt, GST_CLOCK_TIME_NONE, GST_CLOCK_TIME_NONE);
  end_text(pipeline);
  pipeline.run();
  EXPECT_THAT(clips(pipeline),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 5 * kFrame}, Shown{"c", 9, 10 * kFrame}));
}

TEST(TimedPrompts, MayBePangoMarkup) {
  Pipeline pipeline(stub_source("") +
                    "num-frames=5 ! fakesink appsrc name=text format=time "
                    "caps=text/x-raw,format=pango-markup ! src.prompt_sink");
  pipeline.set_state(GST_STATE_PAUSED);
  push_text(pipeline, "a <i>boat</i> &amp; a <span foreground=\"red\">storm</span>", 0, 5 * kFrame);
  push_text(pipeline, "a < b", 5 * kFrame, 5 * kFrame);
  end_text(pipeline);
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("a boat & a storm"));
  EXPECT_THAT(warnings(pipeline), ElementsAre(HasSubstr("is not the markup")));
}

TEST(TimedPrompts, AreNotWaitedForByQueuedClips) {
  Pipeline pipeline(stub_source("own") + "num-frames=5 ! fakesink sync=false" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const guint id = enqueue(pipeline, "queued");
  EXPECT_EQ(wait_for(pipeline, "wan-clip", "id"), id);
  end_text(pipeline);
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
}

TEST(TimedPrompts, ThatNobodySendsHoldNothing) {
  Pipeline pipeline(stub_source("own") + "num-frames=5 ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  const Ptr<GstPad> pad(gst_element_request_pad_simple(source.get(), "prompt_sink"));
  pipeline.run();
  EXPECT_EQ(clips(pipeline).size(), 1u);
  EXPECT_TRUE(gst_element_add_pad(pipeline.get(), gst_ghost_pad_new("text", pad.get())));
  pipeline.run();
  EXPECT_EQ(clips(pipeline).size(), 2u) << "a ghost pad that is not linked itself";
}

// Behind the ghost pads of two bins, where the pad itself stays linked.
TEST(TimedPrompts, AreNotWaitedForWhenABinIsUnlinked) {
  Pipeline pipeline("bin. ( name=outer bin. ( name=inner " + stub_source("own") +
                    "num-clips=2 ! fakesink ) ) " +
                    "appsrc name=text format=time caps=text/x-raw,format=utf8");
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "prompt_sink"));
  const Ptr<GstPad> text(gst_element_get_static_pad(pipeline.find("text").get(), "src"));
  GstPad *inner = gst_ghost_pad_new("text", pad.get());
  EXPECT_TRUE(gst_element_add_pad(pipeline.find("inner").get(), inner));
  GstPad *outer = gst_ghost_pad_new("text", inner);
  EXPECT_TRUE(gst_element_add_pad(pipeline.find("outer").get(), outer));
  EXPECT_EQ(gst_pad_link(text.get(), outer), GST_PAD_LINK_OK);
  pipeline.set_state(GST_STATE_PLAYING);
  push_text(pipeline, "a", 0, 5 * kFrame);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_TRUE(gst_pad_unlink(text.get(), outer));
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
}

TEST(TimedPrompts, AreNotWaitedForWhenTheirPadIsReleased) {
  Pipeline pipeline(stub_source("own") + "num-frames=5 ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const Ptr<GstElement> source = pipeline.find("src");
  const Ptr<GstPad> pad(gst_element_get_static_pad(source.get(), "prompt_sink"));
  gst_element_release_request_pad(source.get(), pad.get());
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
}

// A live source that was added late counts by the pipeline's running time, as its texts do.
TEST(TimedPrompts, AreInTimeForALiveSourceThatBeganLate) {
  Pipeline pipeline("videotestsrc is-live=true ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  GError *error = nullptr;
  const std::string late = stub_source("none") +
                           "is-live=true num-clips=-1 num-frames=5 ! fakesink sync=true appsrc "
                           "name=text is-live=true format=time caps=text/x-raw,format=utf8 ! src.prompt_sink";
  GstElement *bin = gst_parse_bin_from_description(late.c_str(), FALSE, &error);
  ASSERT_NE(bin, nullptr) << error->message;
  gst_bin_add(GST_BIN(pipeline.get()), bin);
  gst_element_sync_state_with_parent(bin);
  while (clips(pipeline).empty()) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  const GstClockTime now = gst_element_get_current_running_time(pipeline.get());
  push_text(pipeline, "now", now, GST_CLOCK_TIME_NONE);
  while (clips(pipeline).back().prompt != "now") ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_LT(clips(pipeline).back().pts, now + 1200 * GST_MSECOND);
}

TEST(TimedPrompts, PadComesAndGoes) {
  Ptr<GstElement> source(gst_element_factory_make("wansrc", nullptr));
  gst_object_ref_sink(source.get());
  Ptr<GstPad> pad(gst_element_request_pad_simple(source.get(), "prompt_sink"));
  ASSERT_NE(pad, nullptr);
  GstPadTemplate *pads = gst_element_get_pad_template(source.get(), "prompt_sink");
  EXPECT_EQ(gst_element_request_pad(source.get(), pads, nullptr, nullptr), nullptr) << "there is one";
  gst_element_release_request_pad(source.get(), pad.get());
  pad.reset(gst_element_request_pad_simple(source.get(), "prompt_sink"));
  EXPECT_NE(pad, nullptr);
  gst_element_release_request_pad(source.get(), pad.get());
}

const std::string kFading =
    "wansrc name=src device=cpu steps=1 seed=1 transition=crossfade transition-frames=2 ";

TEST(Crossfade, ShortensTheStream) {
  Pipeline pipeline(kFading + "num-frames=5 prompts=<a,b,c>" + kSmallCaps + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 3u + 3 + 5);
}

TEST(Crossfade, IsACutWhereAClipIsTooShort) {
  Pipeline pipeline(kFading + "num-frames=5" + kSmallCaps + kSink);
  EXPECT_TRUE(enqueue(pipeline, "a"));
  EXPECT_TRUE(enqueue(pipeline, "b", "settings, num-frames=(int)1"));
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 5u + 1) << "no frame is lost";
}

TEST(Crossfade, BeginsAtATimedPrompt) {
  const Script script(
      "1\n00:00:00,000 --> 00:00:00,500\na boat\n\n2\n00:00:00,500 --> 00:00:01,000\na storm\n\n");
  Pipeline pipeline(kFading + "num-frames=9 ! video/x-raw,width=32,height=32,framerate=16/1" + kSink +
                    script.into("src"));
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 16u);
  const std::vector<Shown> shown = clips(pipeline);
  const auto storm =
      std::find_if(shown.begin(), shown.end(), [](const Shown &clip) { return clip.prompt == "a storm"; });
  ASSERT_NE(storm, shown.end());
  EXPECT_EQ(storm->pts, GST_SECOND / 2);
}

Ptr<GstElement> from_uri(const char *uri, std::string *message = nullptr) {
  GError *error = nullptr;
  GstElement *element = gst_element_make_from_uri(GST_URI_SRC, uri, nullptr, &error);
  if (message && error) *message = error->message;
  g_clear_error(&error);
  return Ptr<GstElement>(element ? GST_ELEMENT(gst_object_ref_sink(element)) : nullptr);
}

TEST(Uri, SetsPromptAndProperties) {
  const Ptr<GstElement> source = from_uri(
      "wan://a%20red circle%3F?seed=5&steps=3&num-clips=-1&is-live=true&scheduler=euler&prompts=<a,b>&"
      "sigmas=<1,0.5>&cache=first-block");
  ASSERT_NE(source, nullptr);
  gchar *prompt = nullptr, *uri = gst_uri_handler_get_uri(GST_URI_HANDLER(source.get()));
  gint64 seed = 0;
  int steps = 0, clips = 0, scheduler = 0, cache = 0;
  gboolean live = FALSE;
  g_object_get(source.get(), "prompt", &prompt, "seed", &seed, "steps", &steps, "num-clips", &clips,
               "is-live", &live, "scheduler", &scheduler, "cache", &cache, nullptr);
  EXPECT_STREQ(prompt, "a red circle?");
  EXPECT_EQ(seed, 5);
  EXPECT_EQ(steps, 3);
  EXPECT_EQ(clips, -1);
  EXPECT_EQ(scheduler, 2);
  EXPECT_EQ(cache, 1);
  EXPECT_TRUE(live);
  EXPECT_THAT(uri, HasSubstr("wan://a%20red"));
  g_free(prompt);
  g_free(uri);
}

TEST(Uri, RefusesWhatItMustNotSet) {
  for (const auto &[uri, reason] : {std::pair{"wan://a?engine=/tmp/evil.so", "engine"},
                                    {"wan://a?worker=evil.example", "worker"},
                                    {"wan://a?name=x", "name"},
                                    {"wan://a?steps=many", "is not a valid value for steps."},
                                    {"wan://a?steps=-4", "is not a valid value for steps."},
                                    {"wan://a%zz", "percent-encoded"},
                                    {"wan://a%ff", "percent-encoded UTF-8"},
                                    {"wan://a?model=%ff", "percent-encoded UTF-8"},
                                    {"wan://a\xff", "not UTF-8"},
                                    {"wan://a?steps", "name=value"},
                                    {"wan://a?loras=<x,{y=0.5\">", "is not a valid value for loras."},
                                    {"wan://a#1?steps=3", "fragment"},
                                    {"wan://a?seed=18446744073709551615", "is not a valid value for seed."},
                                    {"wan://a?seed=99999999999999999999", "is not a valid value for seed."},
                                    {"wan://a?flow-shift=0", "flow-shift must be"},
                                    {"wan://a?guidance-scale=nan", "guidance-scale"},
                                    {"wan://a?sigmas=<0.2,0.9>", "sigmas must fall"}}) {
    std::string message;
    EXPECT_EQ(from_uri(uri, &message), nullptr) << uri;
    EXPECT_THAT(message, HasSubstr(reason));
  }
}

int number_of(GstElement *source, const char *property) {
  int value = 0;
  g_object_get(source, property, &value, nullptr);
  return value;
}

TEST(Uri, IsTakenWholeOrNotAtAll) {
  const Ptr<GstElement> source = from_uri("wan://a?num-clips=3&steps=7");
  GstURIHandler *handler = GST_URI_HANDLER(source.get());
  for (const char *bad :
       {"wan://b?steps=5&wrong=1", "wan://b?steps=5&num-clips=many", "wan://b?steps=5&sigmas=<1,1>"}) {
    EXPECT_FALSE(gst_uri_handler_set_uri(handler, bad, nullptr));
    EXPECT_EQ(number_of(source.get(), "steps"), 7) << bad;
    gchar *uri = gst_uri_handler_get_uri(handler);
    EXPECT_STREQ(uri, "wan://a?num-clips=3&steps=7");
    g_free(uri);
  }
}

TEST(Uri, ResetsWhatTheOneBeforeHasSet) {
  const Ptr<GstElement> source = from_uri("WAN://a?num-clips=3&steps=7&prompts=<x>&is-live=true");
  ASSERT_NE(source, nullptr);
  g_object_set(source.get(), "queue-size", 9, nullptr);
  EXPECT_TRUE(gst_uri_handler_set_uri(GST_URI_HANDLER(source.get()), "wan://b?steps=2", nullptr));
  EXPECT_EQ(number_of(source.get(), "steps"), 2);
  EXPECT_EQ(number_of(source.get(), "num-clips"), 1);
  EXPECT_EQ(number_of(source.get(), "queue-size"), 9) << "no URI has set it";
  EXPECT_FALSE(gst_base_src_is_live(GST_BASE_SRC(source.get())));
  GValue queue = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(source.get()), "prompts", &queue);
  EXPECT_EQ(gst_value_array_get_size(&queue), 0u);
  g_value_unset(&queue);
}

TEST(Uri, IsForReadyAtMost) {
  Pipeline pipeline(kClip + "! fakesink");
  pipeline.reach(GST_STATE_PAUSED);
  GError *error = nullptr;
  EXPECT_FALSE(gst_uri_handler_set_uri(GST_URI_HANDLER(pipeline.find("src").get()), "wan://b", &error));
  EXPECT_EQ(error->code, GST_URI_ERROR_BAD_STATE);
  g_error_free(error);
}

TEST(Uri, PlaysInPlaybin) {
  Pipeline pipeline(
      "playbin name=play uri=\"wan://a red circle?num-frames=5&steps=1&seed=1&device=cpu\" "
      "video-sink=\"appsink name=sink sync=false wait-on-eos=false\"");
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GstMessageType(GST_MESSAGE_EOS | GST_MESSAGE_ERROR)), nullptr);
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  EXPECT_EQ(clips(pipeline).size(), 1u);
}

}  // namespace
}  // namespace wan::test
