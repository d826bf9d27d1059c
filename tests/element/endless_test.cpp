// Causal models: one video without an end, whose clips follow each other section by section.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmock/gmock.h>
#include <gst/app/gstappsink.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <thread>

#include "clips.h"

namespace wan::test {
namespace {

using testing::ElementsAre;

// The stub's sections have 12 frames, and its first one 9.
const std::string kEndless = stub_source("own") + "model=endless seed=7 ";
constexpr bool begins_section(GstClockTime pts) {
  return pts == 0 || (pts / kFrame + 3) % 12 == 0;
}

guint64 stat(const Pipeline &pipeline, const char *name) {
  guint64 value = 0;
  gst_structure_get_uint64(pipeline.stats().get(), name, &value);
  return value;
}

// Of the clips that have ended, in their order: how, and their prompts.
std::vector<std::string> ends(const Pipeline &pipeline) {
  std::vector<std::string> ended;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    const std::string name = gst_structure_get_name(structure);
    if (name == "wan-clip-done" || name == "wan-clip-skipped")
      ended.push_back(name + " " + gst_structure_get_string(structure, "prompt"));
  }
  return ended;
}

void set_prompt(const Pipeline &pipeline, const char *prompt) {
  g_object_set(pipeline.find("src").get(), "prompt", prompt, nullptr);
}

// Waits until a clip of this prompt is on air.
Shown await_clip(Pipeline &pipeline, const std::string &prompt) {
  const auto is_there = [&] { return !clips(pipeline).empty() && clips(pipeline).back().prompt == prompt; };
  while (!is_there() && pipeline.wait(GstMessageType(GST_MESSAGE_ELEMENT | GST_MESSAGE_ERROR)) &&
         !first_error(pipeline)) {
  }
  EXPECT_TRUE(is_there()) << prompt;
  return is_there() ? clips(pipeline).back() : Shown{};
}

TEST(Endless, IsOneClipForEver) {
  Pipeline pipeline(kEndless + "num-buffers=500" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 500u);
  EXPECT_THAT(clips(pipeline), ElementsAre(Shown{"own", 7, 0}));
  GstClockTime next = 0;
  for (const auto &sample : pipeline.samples()) {
    EXPECT_EQ(GST_BUFFER_PTS(gst_sample_get_buffer(sample.get())), next);
    next += kFrame;
  }
}

TEST(Endless, EndsAfterSoManyFrames) {
  for (const int count : {1, 5, 9, 13, 25, 81}) {
    Pipeline pipeline(kEndless + "num-frames=" + std::to_string(count) + kSink);
    pipeline.run();
    EXPECT_FALSE(first_error(pipeline));
    EXPECT_EQ(pipeline.samples().size(), size_t(count));
    EXPECT_EQ(clips(pipeline).size(), 1u);
  }
}

TEST(Endless, HasNoDuration) {
  Pipeline pipeline(kEndless + "! fakesink");
  EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  gint64 duration = 0;
  EXPECT_FALSE(gst_element_query_duration(pipeline.get(), GST_FORMAT_TIME, &duration) && duration >= 0);
}

TEST(Endless, ShowsANewPromptFromTheNextSectionOn) {
  Pipeline pipeline(kEndless + "queue-size=1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  for (const char *prompt : {"second", "third"}) {
    set_prompt(pipeline, prompt);
    const Shown shown = await_clip(pipeline, prompt);
    EXPECT_TRUE(begins_section(shown.pts)) << shown;
  }
  EXPECT_EQ(clips(pipeline).back().seed, 9u);
  gdouble latency = 0;
  EXPECT_TRUE(gst_structure_get_double(pipeline.stats().get(), "prompt-to-screen", &latency));
  EXPECT_GT(latency, 0);
}

TEST(Endless, PlaysTheQueueAndGoesBack) {
  Pipeline pipeline(kEndless + "queue-size=1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  EXPECT_NE(enqueue(pipeline, "once", "clip,num-frames=13"), 0u);
  const Shown once = await_clip(pipeline, "once");
  EXPECT_TRUE(begins_section(once.pts));
  EXPECT_EQ(await_clip(pipeline, "own").pts, once.pts + 12 * kFrame);
  EXPECT_THAT(ends(pipeline), ElementsAre("wan-clip-done own", "wan-clip-done once"));
}

// As a scene that is to go on until the next one is asked for.
TEST(Endless, IsNoNewClipWhereAQueuedOneShowsWhatThePropertySays) {
  Pipeline pipeline(kEndless + "queue-size=1 num-buffers=100 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PAUSED);
  EXPECT_NE(enqueue(pipeline, "scene", "clip,prompt-switch=cut"), 0u);
  set_prompt(pipeline, "scene");
  pipeline.run();
  const auto shown = clips(pipeline);
  ASSERT_FALSE(shown.empty());
  EXPECT_EQ(shown.back().prompt, "scene");
  EXPECT_LE(shown.size(), 2u) << "its own, and that before it";
}

TEST(Endless, SaysWhatTheModelIs) {
  for (const auto &[model, endless, takes_image] : {std::tuple{"endless", TRUE, FALSE},
                                                    {"endless-takes-pictures", TRUE, TRUE},
                                                    {"clips", FALSE, FALSE}}) {
    Pipeline pipeline(stub_source("own") + "model=" + model + " ! fakesink");
    EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
    gboolean is_endless = -1, image = -1;
    gst_structure_get(pipeline.stats().get(), "endless", G_TYPE_BOOLEAN, &is_endless, "takes-image",
                      G_TYPE_BOOLEAN, &image, nullptr);
    EXPECT_EQ(is_endless, endless) << model;
    EXPECT_EQ(image, takes_image) << model;
  }
}

TEST(Endless, IsWhatALiveSourceMakesWithoutAModel) {
  const std::string model = std::getenv("GST_WAN_MODEL");
  const auto is_endless = [](const std::string &settings) {
    Pipeline pipeline("wansrc name=src device=cpu num-frames=1 " + settings + " ! fakesink");
    pipeline.set_state(GST_STATE_PAUSED);
    gboolean endless = -1;
    EXPECT_TRUE(gst_structure_get_boolean(pipeline.stats().get(), "endless", &endless));
    return endless;
  };
  g_setenv("GST_WAN_MODELS", std::filesystem::path(model).parent_path().c_str(), TRUE);
  EXPECT_FALSE(is_endless("is-live=true")) << "$GST_WAN_MODEL is more";
  g_unsetenv("GST_WAN_MODEL");
  EXPECT_TRUE(is_endless("is-live=true"));
  EXPECT_FALSE(is_endless(""));
  EXPECT_FALSE(is_endless("is-live=true model=" + model));
  g_setenv("GST_WAN_MODEL", model.c_str(), TRUE);
  g_unsetenv("GST_WAN_MODELS");
}

TEST(Endless, PlaysAListOfPrompts) {
  Pipeline pipeline(kEndless + "prompts=<a,b,c> num-frames=25" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(clips(pipeline),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 33 * kFrame}, Shown{"c", 9, 57 * kFrame}))
      << "whole sections";
}

// Of clips that say no length themselves.
TEST(Endless, ChangesToTheNextOfAListAfterFiveSeconds) {
  Pipeline pipeline(kEndless + "prompts=<a,b> num-buffers=300 ! fakesink");
  pipeline.run();
  EXPECT_THAT(clips(pipeline), ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 129 * kFrame}))
      << "the first section that begins 125 frames later";
}

TEST(Endless, BeginsANewSceneWhereSkipped) {
  Pipeline pipeline(kEndless + "queue-size=1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  g_signal_emit_by_name(pipeline.find("src").get(), "skip");
  while (clips(pipeline).size() < 2) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_THAT(ends(pipeline), ElementsAre("wan-clip-skipped own"));
  EXPECT_TRUE(begins_section(clips(pipeline)[1].pts)) << "nothing that was made is dropped";
  EXPECT_EQ(clips(pipeline)[1].seed, 8u);
}

// By the embedded model, on the CPU.
TEST(Endless, ShowsASceneAgainBitForBit) {
  const std::string models = std::filesystem::path(std::getenv("GST_WAN_MODEL")).parent_path();
  Pipeline pipeline("wansrc name=src device=cpu model=" + models + "/wan-tiny-causal" + kSink);
  pipeline.set_state(GST_STATE_READY);
  for (const auto &[prompt, seed] :
       {std::pair{"a red star", "3"}, {"a blue circle", "4"}, {"a red star", "3"}})
    EXPECT_NE(
        enqueue(pipeline, prompt, ("clip,num-frames=21,prompt-switch=cut,seed=" + std::string(seed)).c_str()),
        0u);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  const auto &samples = pipeline.samples();
  ASSERT_EQ(samples.size(), 63u);
  for (size_t frame = 0; frame < 21; ++frame) {
    EXPECT_EQ(bytes(samples[frame].get()), bytes(samples[42 + frame].get())) << frame;
    EXPECT_NE(bytes(samples[frame].get()), bytes(samples[21 + frame].get())) << frame;
  }
}

TEST(Endless, GivesASceneAsManyFramesAsAreAskedFor) {
  Pipeline pipeline(kEndless + "num-clips=2 num-frames=21 prompt-switch=cut" + kSink);
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 42u) << "of which none is shared with the scene before";
}

TEST(Endless, FollowsTimedPrompts) {
  Pipeline pipeline(kEndless + kSink + kText);
  pipeline.set_state(GST_STATE_PAUSED);
  for (const auto &[prompt, frame] : {std::pair{"a", 0}, {"b", 20}, {"c", 40}})
    push_text(pipeline, prompt, frame * kFrame, 20 * kFrame);
  end_text(pipeline);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(clips(pipeline),
              ElementsAre(Shown{"a", 7, 0}, Shown{"b", 8, 21 * kFrame}, Shown{"c", 9, 45 * kFrame}))
      << "each at the first section behind its time";
  EXPECT_EQ(pipeline.samples().size(), 60u) << "to the end of the last one, exactly";
}

// As a script that is over while the stream goes on.
TEST(Endless, GoesOnWithOneClipWhereTheTextHasEnded) {
  Pipeline pipeline(kEndless + "is-live=true num-clips=-1 prompt-switch=cut num-buffers=100 ! fakesink" +
                    kText);
  pipeline.set_state(GST_STATE_READY);
  push_text(pipeline, "a", 0, GST_SECOND);
  end_text(pipeline);
  pipeline.run();
  const std::vector<std::string> shown = films(pipeline);
  EXPECT_THAT(shown, testing::Contains("a"));
  EXPECT_EQ(shown.back(), "own");
  EXPECT_EQ(clips(pipeline).size(), shown.size()) << "none begins anew";
}

TEST(Endless, IsOneClipWhereNobodySendsText) {
  Pipeline pipeline(kEndless + "num-buffers=100 ! fakesink");
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "prompt_sink"));
  pipeline.run();
  EXPECT_THAT(clips(pipeline), ElementsAre(Shown{"own", 7, 0}));
}

TEST(Endless, ShowsEachTextWithoutATime) {
  Pipeline pipeline(kEndless + "! fakesink appsrc name=text caps=text/x-raw,format=utf8 ! src.prompt_sink");
  pipeline.set_state(GST_STATE_READY);
  for (const char *text : {"a", "b", "c", "d", "e"})
    push_text(pipeline, text, GST_CLOCK_TIME_NONE, GST_CLOCK_TIME_NONE);
  end_text(pipeline);
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("a", "b", "c", "d", "e"));
}

TEST(Endless, ShowsTheLastTextOfALiveStream) {
  Pipeline pipeline(kEndless + "is-live=true num-clips=-1 ! fakesink " +
                    "appsrc name=text is-live=true caps=text/x-raw,format=utf8 ! src.prompt_sink");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  push_text(pipeline, "last", GST_CLOCK_TIME_NONE, GST_CLOCK_TIME_NONE);
  end_text(pipeline);
  await_clip(pipeline, "last");
  await_clip(pipeline, "own");
}

TEST(Endless, GoesOnBehindAQueuedClip) {
  for (const bool skips : {false, true}) {
    Pipeline pipeline(kEndless + "is-live=true prompts=\"<a>\" ! fakesink");
    pipeline.set_state(GST_STATE_PLAYING);
    await_clip(pipeline, "a");
    if (skips)
      g_signal_emit_by_name(pipeline.find("src").get(), "skip");
    else
      set_prompt(pipeline, "second");
    await_clip(pipeline, skips ? "own" : "second");
  }
}

TEST(Endless, EndsAQueuedClipExactly) {
  Pipeline pipeline(kEndless + "prompts=\"<a,b>\" num-frames=13" + kSink);
  pipeline.run();
  EXPECT_THAT(films(pipeline), ElementsAre("a", "b"));
  EXPECT_EQ(pipeline.samples().size(), 21u + 13 - 1) << "whole sections, but for the last one";
}

// Neither the text of what is on air nor a change that is taken back is one.
TEST(Endless, IsNoNewClipWherePropertiesSayTheSame) {
  Pipeline pipeline(kEndless + "is-live=true num-clips=-1 prompt-switch=cut ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  const auto play = [&] {
    const guint64 pushed = stat(pipeline, "frames-pushed");
    while (stat(pipeline, "frames-pushed") < pushed + 40 && !first_error(pipeline))
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  };
  set_prompt(pipeline, "second");
  set_prompt(pipeline, "own");
  play();
  EXPECT_NE(enqueue(pipeline, "scene"), 0u);
  await_clip(pipeline, "scene");
  set_prompt(pipeline, "scene");
  play();
  EXPECT_LE(clips(pipeline).size(), 4u) << "a change may be seen before it is taken back";
  EXPECT_EQ(std::ranges::count(clips(pipeline), "scene", &Shown::prompt), 1);
  EXPECT_EQ(clips(pipeline).back().prompt, "scene");
}

// In a clip they count from 0, and the whole video has one flow shift.
TEST(Endless, SaysOfEachClipWhatItIs) {
  Pipeline pipeline(kEndless + "num-clips=2 num-frames=21 flow-shift=3" + kSink);
  pipeline.set_state(GST_STATE_READY);
  EXPECT_NE(enqueue(pipeline, "first", "clip,num-frames=21"), 0u);
  EXPECT_NE(enqueue(pipeline, "second", "clip,num-frames=21,flow-shift=1.0"), 0u);
  pipeline.run();
  ASSERT_GT(pipeline.samples().size(), 22u);
  const auto meta = [&](size_t frame, const char *field) {
    GstBuffer *buffer = gst_sample_get_buffer(pipeline.samples()[frame].get());
    int value = -1;
    gst_structure_get_int(gst_custom_meta_get_structure(gst_buffer_get_custom_meta(buffer, "GstWanMeta")),
                          field, &value);
    return value;
  };
  for (const size_t first : {0, 21}) {
    EXPECT_EQ(meta(first, "clip"), int(first / 21));
    EXPECT_EQ(meta(first, "chunk"), 0);
    EXPECT_EQ(meta(first, "frame"), 0);
  }
  EXPECT_GT(meta(20, "chunk"), 0);
  int told = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    const GstStructure *structure = gst_message_get_structure(const_cast<GstMessage *>(message));
    gdouble flow_shift = 0;
    if (!gst_structure_has_name(structure, "wan-clip")) continue;
    EXPECT_TRUE(gst_structure_get_double(structure, "flow-shift", &flow_shift));
    EXPECT_EQ(flow_shift, 3);
    ++told;
  }
  EXPECT_EQ(told, 2);
}

TEST(Endless, GoesOnWhereAPromptCannotBeShown) {
  Pipeline pipeline(kEndless + "is-live=true num-clips=-1 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  const guint id = enqueue(pipeline, "out-of-memory");
  EXPECT_EQ(wait_for(pipeline, "wan-clip-failed", "id"), id);
  set_prompt(pipeline, "second");
  await_clip(pipeline, "second");
  EXPECT_FALSE(first_error(pipeline));
}

TEST(Endless, GoesOnWhereAPictureCannotBeRead) {
  Pipeline pipeline(stub_source("own") + "model=endless-takes-pictures queue-size=1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  const guint id = enqueue(pipeline, "picture", "clip,image=/nowhere/cat.png");
  EXPECT_EQ(wait_for(pipeline, "wan-clip-failed", "id"), id);
  set_prompt(pipeline, "second");
  await_clip(pipeline, "second");
  EXPECT_FALSE(first_error(pipeline));
}

TEST(Endless, GoesOnWhereThePropertysPictureCannotBeRead) {
  Pipeline pipeline(stub_source("own") +
                    "model=endless-takes-pictures num-clips=-1 queue-size=1 ! fakesink sync=true");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  const Ptr<GstElement> source = pipeline.find("src");
  g_object_set(source.get(), "image", "/nowhere/cat.png", nullptr);
  wait_for(pipeline, "wan-clip-failed", "id");
  const guint64 pushed = stat(pipeline, "frames-pushed");
  g_signal_emit_by_name(source.get(), "skip");
  while (stat(pipeline, "frames-pushed") < pushed + 30 && !first_error(pipeline))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  g_object_set(source.get(), "image", "", "prompt", "second", nullptr);
  await_clip(pipeline, "second");
  guint failures = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT))
    failures += gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip-failed");
  EXPECT_GE(failures, 1u);
  EXPECT_LE(failures, 4u);
  EXPECT_FALSE(first_error(pipeline));
}

// A picture whose values of red are 200.
std::string write_picture() {
  const std::string file = testing::TempDir() + "wan-endless-red.png";
  Pipeline(
      "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xFFC80000 ! "
      "video/x-raw,format=RGB,width=64,height=48 ! pngenc ! filesink location=" +
      file)
      .run();
  return file;
}

TEST(Endless, BeginsAQueuedSceneFromItsPicture) {
  const std::string file = write_picture();
  Pipeline pipeline(stub_source("own") + "model=endless-takes-pictures num-clips=1" + kSink);
  pipeline.set_state(GST_STATE_READY);
  for (const auto &settings : {std::string("num-frames=9"), "num-frames=21,image=" + file})
    EXPECT_NE(enqueue(pipeline, "scene", ("clip,seed=7," + settings).c_str()), 0u);
  pipeline.run();
  const auto value = [&](size_t frame) {
    return static_cast<int>(static_cast<unsigned char>(bytes(pipeline.samples()[frame].get())[0]));
  };
  ASSERT_EQ(pipeline.samples().size(), 30u);
  EXPECT_EQ(value(8), 7);
  EXPECT_EQ(value(9), 200);
  std::remove(file.c_str());
}

TEST(Endless, BeginsANewSceneFromANewPicture) {
  const std::string file = write_picture();
  for (const std::string &text : {std::string(), kText}) {
    Pipeline pipeline(stub_source("own") + "model=endless-takes-pictures is-live=true seed=7" +
                      " ! appsink name=sink" + text);
    pipeline.set_state(GST_STATE_PLAYING);
    await_clip(pipeline, "own");
    g_object_set(pipeline.find("src").get(), "image", file.c_str(), nullptr);
    while (clips(pipeline).size() < 2) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
    const GstClockTime pts = clips(pipeline)[1].pts;
    const Ptr<GstElement> sink = pipeline.find("sink");
    for (;;) {
      const Ptr<GstSample> sample(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 10 * GST_SECOND));
      ASSERT_NE(sample, nullptr);
      const int value = static_cast<unsigned char>(bytes(sample.get())[0]);
      const bool is_new = GST_BUFFER_PTS(gst_sample_get_buffer(sample.get())) >= pts;
      EXPECT_EQ(value == 200, is_new);
      if (is_new) break;
    }
  }
  std::remove(file.c_str());
}

TEST(Endless, TriesATextWithAPictureThatCannotBeReadOnce) {
  Pipeline pipeline(stub_source("own") + "model=endless-takes-pictures is-live=true num-clips=-1 " +
                    "prompt-switch=cut ! fakesink" + kText);
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  push_text(pipeline, "first", 0, GST_CLOCK_TIME_NONE);
  await_clip(pipeline, "first");
  g_object_set(pipeline.find("src").get(), "image", "/nowhere/cat.png", nullptr);
  wait_for(pipeline, "wan-clip-failed", "id");
  push_text(pipeline, "second", GST_SECOND, GST_CLOCK_TIME_NONE);
  wait_for(pipeline, "wan-clip-failed", "id");
  const guint64 pushed = stat(pipeline, "frames-pushed");
  while (stat(pipeline, "frames-pushed") < pushed + 40 && !first_error(pipeline))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_NE(enqueue(pipeline, "last", "clip,prompt-switch=cross"), 0u);
  await_clip(pipeline, "last");
  guint failures = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT))
    failures += gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip-failed");
  EXPECT_EQ(failures, 2u);
  EXPECT_THAT(films(pipeline), ElementsAre("own", "first", "last"));
  EXPECT_FALSE(first_error(pipeline));
}

// What waits in the queue is what a new prompt waits for.
TEST(Endless, OfALiveSourceIsMadeNoEarlierThanNeeded) {
  Pipeline pipeline(kEndless + "is-live=true ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  std::this_thread::sleep_for(std::chrono::seconds(2));
  gdouble waiting = 0;
  EXPECT_TRUE(gst_structure_get_double(pipeline.stats().get(), "queue-seconds", &waiting));
  EXPECT_LE(waiting, 25 * 0.04) << "no more than two sections";
  EXPECT_EQ(stat(pipeline, "underruns"), 0u);
}

TEST(Endless, GivesTheModelToOthersInTurn) {
  Pipeline pipeline(kEndless +
                    "! fakesink sync=true wansrc prompt=other model=endless num-frames=25 engine=" +
                    test_library("WAN_TEST_STUB_ENGINE") + " ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  const auto shown = [&] {
    std::set<std::string> prompts;
    for (const Shown &clip : clips(pipeline)) prompts.insert(clip.prompt);
    return prompts;
  };
  while (shown().size() < 2) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_FALSE(first_error(pipeline));
}

// A live source that needs no frames does not keep the model, and has it again when it does.
TEST(Endless, GivesTheModelToOthersWhilePaused) {
  Pipeline paused(kEndless + "is-live=true ! fakesink");
  paused.set_state(GST_STATE_PLAYING);
  await_clip(paused, "own");
  paused.set_state(GST_STATE_PAUSED);
  Pipeline other(stub_source("other") + "model=endless num-frames=60 ! fakesink");
  other.run();
  EXPECT_FALSE(first_error(other));
  const guint64 pushed = stat(paused, "frames-pushed");
  paused.set_state(GST_STATE_PLAYING);
  while (stat(paused, "frames-pushed") < pushed + 60 && !first_error(paused))
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST(Endless, GoesOnWithAQueuedClipAfterAnothersTurn) {
  Pipeline pipeline(kEndless + "is-live=true num-clips=-1 ! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  await_clip(pipeline, "own");
  EXPECT_NE(enqueue(pipeline, "scene"), 0u);
  await_clip(pipeline, "scene");
  Pipeline(stub_source("other") + "model=endless num-frames=25 ! fakesink").run();
  while (clips(pipeline).size() < 3) ASSERT_NE(pipeline.wait(GST_MESSAGE_ELEMENT), nullptr);
  EXPECT_THAT(films(pipeline), ElementsAre("own", "scene"));
}

TEST(Endless, StopsInEveryState) {
  for (const int moment : {0, 5, 20, 60}) {
    Pipeline pipeline(kEndless + "is-live=true ! fakesink");
    pipeline.set_state(GST_STATE_PLAYING);
    std::this_thread::sleep_for(std::chrono::milliseconds(moment));
    pipeline.set_state(GST_STATE_PAUSED);
    pipeline.set_state(GST_STATE_PLAYING);
    EXPECT_EQ(pipeline.set_state(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  }
}

}  // namespace
}  // namespace wan::test
