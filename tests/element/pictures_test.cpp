// Pictures in: the properties, the pads and the queue; their sizes and kinds; clips that continue each other.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmock/gmock.h>
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const std::string kTakes = stub_source("own") + "model=takes-pictures seed=7 num-frames=5 ";
const std::string kNeeds = stub_source("own") + "model=needs-picture seed=7 num-frames=5 ";

// Files of this test, in a directory of their own.
class Directory : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "wan-pictures-XXXXXX").string();
    ASSERT_NE(g_mkdtemp(name.data()), nullptr);
    directory_ = name;
  }
  void TearDown() override { fs::remove_all(directory_); }

  // Made by a launch line of one frame: videotestsrc in solid-color, and an encoder.
  std::string picture(const std::string &name, const std::string &caps, const std::string &encoder,
                      unsigned argb = 0xFFC80000) {
    const std::string file = (directory_ / name).string();
    Pipeline pipeline(
        "videotestsrc num-buffers=1 pattern=solid-color foreground-color=" + std::to_string(argb) +
        " ! video/x-raw," + caps + " ! " + encoder + " ! filesink location=" + file);
    pipeline.run();
    EXPECT_FALSE(first_error(pipeline));
    return file;
  }
  std::string red(const std::string &size = "width=40,height=30") {
    return picture("red.png", "format=RGB," + size, "pngenc");
  }

  fs::path directory_;
};

// What the stub shows in each clip of a run: the first byte of its frames.
std::vector<int> values(const Pipeline &pipeline) {
  std::vector<int> shown;
  gint newest = -1;
  for (const auto &sample : pipeline.samples()) {
    GstBuffer *buffer = gst_sample_get_buffer(sample.get());
    gint clip = -1;
    gst_structure_get_int(gst_custom_meta_get_structure(gst_buffer_get_custom_meta(buffer, "GstWanMeta")),
                          "clip", &clip);
    if (clip != newest) shown.push_back(static_cast<unsigned char>(bytes(buffer)[0]));
    newest = clip;
  }
  return shown;
}

std::vector<int> values_of(const std::string &launch) {
  Pipeline pipeline(launch + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  return values(pipeline);
}

std::string size_of(const std::string &launch) {
  Pipeline pipeline(launch + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  if (pipeline.samples().empty()) return "none";
  GstStructure *caps = gst_caps_get_structure(gst_sample_get_caps(pipeline.samples()[0].get()), 0);
  gint width = 0, height = 0;
  gst_structure_get(caps, "width", G_TYPE_INT, &width, "height", G_TYPE_INT, &height, nullptr);
  return std::to_string(width) + "x" + std::to_string(height);
}

using Image = Directory;

TEST_F(Image, IsWhatAClipBeginsWith) {
  EXPECT_THAT(values_of(kTakes + "image=" + red()), ElementsAre(200));
  EXPECT_THAT(values_of(kTakes + "image=file://" + red()), ElementsAre(200));
  EXPECT_THAT(values_of(kNeeds + "image=" + red()), ElementsAre(200));
  EXPECT_THAT(values_of(kTakes), ElementsAre(7)) << "a model that takes pictures needs none";
}

TEST_F(Image, OfEveryKindIsTaken) {
  for (const auto &[name, caps, encoder] :
       {std::tuple{"grey.png", "format=GRAY8", "pngenc"},
        {"deep.png", "format=GRAY16_BE", "pngenc"},
        {"alpha.png", "format=RGBA", "pngenc"},
        {"jpeg.jpg", "format=I420", "jpegenc quality=100"},
        {"clip.avi", "format=I420,framerate=25/1", "jpegenc quality=100 ! avimux"},
        {"pixel.png", "format=RGB,width=1,height=1", "pngenc"}})
    EXPECT_EQ(values_of(kTakes + "image=" + picture(name, caps, encoder)).size(), 1u) << name;
}

TEST_F(Image, ThatCannotBeReadIsAnErrorThatNamesIt) {
  EXPECT_THAT(error_of(kTakes + "image=/nowhere/cat.png ! fakesink").message, HasSubstr("/nowhere/cat.png"));
  const std::string text = (directory_ / "cat.png").string();
  std::ofstream(text) << "no picture";
  EXPECT_THAT(error_of(kTakes + "image=" + text + " ! fakesink").message, HasSubstr(text));
  EXPECT_THAT(error_of(kTakes + "image=wan://a ! fakesink").message, HasSubstr("another wansrc"));
  EXPECT_THAT(error_of(kTakes + "image=udp://127.0.0.1:5004 ! fakesink").message, HasSubstr("live source"));
  const std::string fifo = testing::TempDir() + "wan-picture-fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(error_of(kTakes + "image=" + fifo + " ! fakesink").message, HasSubstr("not a regular file"));
  std::remove(fifo.c_str());
}

TEST_F(Image, IsRefusedOrMissedBeforeTheModelIsLoaded) {
  for (const auto &[launch, message] :
       {std::pair{stub_source("") + "image=" + red(), "The stub takes no such picture."},
        {kNeeds, "The stub needs a picture."}}) {
    Pipeline pipeline(launch + " ! fakesink");
    pipeline.run();
    ASSERT_TRUE(first_error(pipeline));
    EXPECT_EQ(first_error(pipeline)->message, message);
    EXPECT_TRUE(pipeline.messages(GST_MESSAGE_PROGRESS).empty()) << "the model was loaded";
  }
}

TEST_F(Image, DecidesTheSizeThatIsLeftOpen) {
  // The stub suggests 64x48 pixels, in multiples of 16.
  EXPECT_EQ(size_of(kTakes + "image=" + red("width=40,height=30")), "64x48");
  EXPECT_EQ(size_of(kTakes + "image=" + red("width=30,height=40")), "48x64");
  EXPECT_EQ(size_of(kTakes + "image=" + red("width=200,height=50")), "96x16");
  EXPECT_EQ(size_of(kTakes + "image=" + red() + " ! video/x-raw,width=32,height=32"), "32x32");
}

TEST_F(Image, IsUprightAsItsCameraWasHeld) {
  const std::string held = picture("held.jpg", "format=I420,width=40,height=30",
                                   "jpegenc ! taginject tags=image-orientation=rotate-90 ! jifmux");
  EXPECT_EQ(size_of(kTakes + "image=" + held), "48x64");
}

TEST_F(Image, OfAQueuedClipIsItsOwn) {
  Pipeline pipeline(kTakes + "num-clips=4 image=" + red() + kSink);
  const auto enqueue = [&](GstStructure *settings) {
    guint id = 0;
    g_signal_emit_by_name(pipeline.find("src").get(), "enqueue", "queued", settings, &id);
    gst_structure_free(settings);
    return id;
  };
  const std::string dark = picture("dark.png", "format=RGB", "pngenc", 0xFF320000);
  EXPECT_NE(enqueue(gst_structure_new("settings", "image", G_TYPE_STRING, dark.c_str(), nullptr)), 0u);
  const Ptr<GstCaps> caps(gst_caps_from_string("video/x-raw,format=RGB,width=4,height=4,framerate=1/1"));
  GstBuffer *pixels = gst_buffer_new_allocate(nullptr, 48, nullptr);
  gst_buffer_memset(pixels, 0, 99, 48);
  const Ptr<GstSample> sample(gst_sample_new(pixels, caps.get(), nullptr, nullptr));
  gst_buffer_unref(pixels);
  EXPECT_NE(enqueue(gst_structure_new("settings", "image", GST_TYPE_SAMPLE, sample.get(), nullptr)), 0u);
  EXPECT_NE(enqueue(gst_structure_new("settings", "image", G_TYPE_STRING, "/nowhere", nullptr)), 0u);
  pipeline.run();
  EXPECT_THAT(values(pipeline), ElementsAre(50, 99, 200)) << "a clip without its picture fails alone";
}

TEST_F(Image, IsNoPropertyOfUris) {
  GError *error = nullptr;
  GstElement *element = gst_element_make_from_uri(GST_URI_SRC, "wan://a?image=/etc/passwd", nullptr, &error);
  EXPECT_EQ(element, nullptr);
  ASSERT_NE(error, nullptr);
  EXPECT_STREQ(error->message, "image cannot be set by a URI.");
  g_error_free(error);
}

using Pad = Directory;

TEST_F(Pad, TakesPictures) {
  EXPECT_THAT(values_of("filesrc location=" + red() + " ! pngdec ! src.image_sink " + kNeeds),
              ElementsAre(200));
}

TEST_F(Pad, DecidesTheSizeThatIsLeftOpen) {
  EXPECT_EQ(size_of("filesrc location=" + red("width=30,height=40") + " ! pngdec ! src.image_sink " + kNeeds),
            "48x64");
}

TEST_F(Pad, ShowsEachPictureFromItsTimeOn) {
  Pipeline pipeline(
      "appsrc name=pictures format=time caps=video/x-raw,format=RGB,width=4,height=4,framerate=0/1 "
      "! src.image_sink " +
      kNeeds + "num-clips=3" + kSink);
  const Ptr<GstElement> pictures = pipeline.find("pictures");
  // A clip is 0.2 s long.
  for (const auto &[value, start] : {std::pair{10, 0}, {20, 200}, {30, 390}}) {
    GstBuffer *buffer = gst_buffer_new_allocate(nullptr, 48, nullptr);
    gst_buffer_memset(buffer, 0, guint8(value), 48);
    GST_BUFFER_PTS(buffer) = guint64(start) * GST_MSECOND;
    gst_app_src_push_buffer(GST_APP_SRC(pictures.get()), buffer);
  }
  gst_app_src_end_of_stream(GST_APP_SRC(pictures.get()));
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(values(pipeline), ElementsAre(10, 20, 30));
}

TEST_F(Pad, BeginsWithAPictureThatComesALittleLater) {
  const std::string camera =
      "videotestsrc num-buffers=1 timestamp-offset=400000000 pattern=solid-color foreground-color=4291297280 "
      "! "
      "video/x-raw,format=RGB,width=30,height=40 ! src.image_sink ";
  EXPECT_THAT(values_of(camera + kNeeds + "num-clips=3"), ElementsAre(200, 200, 200));
  EXPECT_EQ(size_of(camera + kNeeds), "48x64");
  EXPECT_THAT(values_of(camera + kTakes + "num-clips=3"), ElementsAre(7, 8, 200));
}

TEST_F(Pad, OfALiveSourceTakesTheNewestPicture) {
  Pipeline pipeline(
      "videotestsrc is-live=true pattern=solid-color foreground-color=4291297280 ! "
      "video/x-raw,format=RGB,width=16,height=16 ! src.image_sink " +
      kNeeds + "is-live=true num-clips=-1 ! appsink name=sink sync=false");
  pipeline.set_state(GST_STATE_PLAYING);
  const Ptr<GstElement> sink = pipeline.find("sink");
  for (int seen = 0; seen < 3;) {
    const Ptr<GstSample> sample(gst_app_sink_try_pull_sample(GST_APP_SINK(sink.get()), 20 * GST_SECOND));
    ASSERT_TRUE(sample);
    seen += static_cast<unsigned char>(bytes(sample.get())[0]) == 200;
  }
}

TEST_F(Pad, CanBeReleasedAndRequestedAgain) {
  Pipeline pipeline(kTakes + "! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  GstPad *pad = gst_element_request_pad_simple(source.get(), "image_sink");
  ASSERT_NE(pad, nullptr);
  const Ptr<GstPad> last(gst_element_request_pad_simple(source.get(), "last_image_sink"));
  EXPECT_NE(last, nullptr);
  gst_element_release_request_pad(source.get(), pad);
  gst_object_unref(pad);
  pad = gst_element_request_pad_simple(source.get(), "image_sink");
  EXPECT_NE(pad, nullptr);
  gst_object_unref(pad);
}

// With GStreamer's own way to name a stream there is none.
TEST_F(Pad, BesideOthersLeavesTheStreamItsBeginning) {
  Pipeline pipeline(kTakes + "! decodebin3 ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  std::vector<Ptr<GstPad>> pads;
  for (const char *name : {"prompt_sink", "image_sink", "last_image_sink"})
    pads.emplace_back(gst_element_request_pad_simple(source.get(), name));
  const Ptr<GstPad> out(gst_element_get_static_pad(source.get(), "src"));
  std::vector<GstEventType> events;
  const auto note = [](GstPad *, GstPadProbeInfo *info, gpointer events) {
    static_cast<std::vector<GstEventType> *>(events)->push_back(
        GST_EVENT_TYPE(gst_pad_probe_info_get_event(info)));
    return GST_PAD_PROBE_OK;
  };
  gst_pad_add_probe(out.get(), GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, note, &events, nullptr);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(source.get()->numsinkpads, 3);
  EXPECT_EQ(g_list_length(source.get()->sinkpads), 3u);
  pipeline.set_state(GST_STATE_NULL);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events[0], GST_EVENT_STREAM_START);
  EXPECT_EQ(events[1], GST_EVENT_CAPS);
}

TEST_F(Pad, TakesNoPictureWithoutCaps) {
  Pipeline pipeline("appsrc name=pictures format=time ! src.image_sink " + kTakes + kSink);
  const Ptr<GstElement> pictures = pipeline.find("pictures");
  gst_app_src_push_buffer(GST_APP_SRC(pictures.get()), gst_buffer_new_allocate(nullptr, 48, nullptr));
  gst_app_src_end_of_stream(GST_APP_SRC(pictures.get()));
  pipeline.run();
  ASSERT_TRUE(first_error(pipeline));
  EXPECT_THAT(first_error(pipeline)->message, HasSubstr("its caps are no video"));
}

TEST_F(Pad, TakesAGapOfAnyFormat) {
  Pipeline pipeline(kTakes + "! fakesink");
  pipeline.set_state(GST_STATE_PAUSED);
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "image_sink"));
  for (const GstFormat format : {GST_FORMAT_BYTES, GST_FORMAT_TIME}) {
    GstSegment segment;
    gst_segment_init(&segment, format);
    gst_pad_send_event(pad.get(), gst_event_new_stream_start("pictures"));
    gst_pad_send_event(pad.get(), gst_event_new_segment(&segment));
    EXPECT_TRUE(gst_pad_send_event(pad.get(), gst_event_new_gap(GST_SECOND, GST_CLOCK_TIME_NONE - 1)));
  }
}

// As from a decoder that finds its stream late, behind a bin: of that link the pad hears nothing.
TEST_F(Pad, IsWaitedForOnceAStreamHasBegun) {
  Pipeline pipeline(stub_source("clip=300") + "model=takes-pictures seed=7 num-frames=5 num-clips=3" + kSink);
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "image_sink"));
  pipeline.reach(GST_STATE_PAUSED);
  GstSegment segment;
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_pad_send_event(pad.get(), gst_event_new_stream_start("pictures"));
  const Ptr<GstCaps> caps(gst_caps_from_string("video/x-raw,format=RGB,width=4,height=4,framerate=0/1"));
  gst_pad_send_event(pad.get(), gst_event_new_caps(caps.get()));
  gst_pad_send_event(pad.get(), gst_event_new_segment(&segment));
  std::jthread sender([&] {
    std::this_thread::sleep_for(std::chrono::seconds(1));
    GstBuffer *buffer = gst_buffer_new_allocate(nullptr, 48, nullptr);
    gst_buffer_memset(buffer, 0, 200, 48);
    GST_BUFFER_PTS(buffer) = 0;
    EXPECT_EQ(gst_pad_chain(pad.get(), buffer), GST_FLOW_OK);
    gst_pad_send_event(pad.get(), gst_event_new_eos());
  });
  pipeline.run();
  ASSERT_EQ(values(pipeline).size(), 3u);
  EXPECT_EQ(values(pipeline).front(), 7);
  EXPECT_EQ(values(pipeline).back(), 200);
}

TEST_F(Pad, ThatIsNotLinkedIsNotWaitedFor) {
  Pipeline pipeline(kTakes + kSink);
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "image_sink"));
  const gint64 start = g_get_monotonic_time();
  pipeline.run();
  EXPECT_THAT(values(pipeline), ElementsAre(7));
  EXPECT_LT(g_get_monotonic_time() - start, 9 * G_USEC_PER_SEC) << "15 s is the patience with a silent one";
}

TEST_F(Pad, ThatIsNotLinkedIsMissedBeforeTheModelIsLoaded) {
  Pipeline pipeline(kNeeds + "! fakesink");
  const Ptr<GstPad> pad(gst_element_request_pad_simple(pipeline.find("src").get(), "image_sink"));
  pipeline.run();
  ASSERT_TRUE(first_error(pipeline));
  EXPECT_EQ(first_error(pipeline)->message, "The stub needs a picture.");
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_PROGRESS)) {
    GstProgressType type;
    gst_message_parse_progress(const_cast<GstMessage *>(message), &type, nullptr, nullptr);
    EXPECT_NE(type, GST_PROGRESS_TYPE_CONTINUE) << "the model was loaded";
  }
}

TEST_F(Pad, ThatIsSilentHoldsNobodyForEver) {
  Pipeline pipeline("appsrc ! src.image_sink " + kTakes + "num-clips=4" + kSink);
  const gint64 start = g_get_monotonic_time();
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(values(pipeline), ElementsAre(7, 8, 9, 10));
  const gint64 waited = g_get_monotonic_time() - start;
  EXPECT_GT(waited, 1000000) << "it was waited for";
  EXPECT_LT(waited, 30000000) << "once for the size and once for a clip, not for each clip";
}

TEST_F(Pad, ThatIsSilentDoesNotHoldAStop) {
  Pipeline pipeline("appsrc ! src.image_sink " + kNeeds + "! fakesink");
  pipeline.set_state(GST_STATE_PLAYING);
  g_usleep(300000);
  const gint64 start = g_get_monotonic_time();
  pipeline.set_state(GST_STATE_NULL);
  EXPECT_LT(g_get_monotonic_time() - start, 2000000);
}

using Continuity = Directory;

TEST_F(Continuity, BeginsEachClipWithTheLastFrameOfTheOneBefore) {
  Pipeline pipeline(kTakes + "num-clips=3 continuity=last-frame image=" + red() + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(values(pipeline), ElementsAre(200, 201, 202));
  EXPECT_EQ(pipeline.samples().size(), 5u + 4 + 4) << "the frame that two clips share is sent once";
  GstClockTime next = 0;
  for (const auto &sample : pipeline.samples()) {
    EXPECT_EQ(GST_BUFFER_PTS(gst_sample_get_buffer(sample.get())), next);
    next += GST_BUFFER_DURATION(gst_sample_get_buffer(sample.get()));
  }
}

TEST_F(Continuity, LeavesAQueuedClipItsOwnPicture) {
  Pipeline pipeline(kTakes + "num-clips=3 continuity=last-frame" + kSink);
  for (const std::string &settings : {std::string("settings"), "settings, image=(string)" + red()}) {
    GstStructure *structure = gst_structure_from_string(settings.c_str(), nullptr);
    guint id = 0;
    g_signal_emit_by_name(pipeline.find("src").get(), "enqueue", "a prompt", structure, &id);
    gst_structure_free(structure);
    EXPECT_GT(id, 0u);
  }
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_THAT(values(pipeline), ElementsAre(7, 200, 201));
  EXPECT_EQ(pipeline.samples().size(), 5u + 5 + 4) << "nothing is shared with what it does not continue";
}

TEST_F(Continuity, CountsInTheDuration) {
  Pipeline pipeline(kTakes + "num-clips=3 continuity=last-frame ! fakesink");
  pipeline.reach(GST_STATE_PAUSED);
  gint64 frames = 0;
  EXPECT_TRUE(gst_element_query_duration(pipeline.find("src").get(), GST_FORMAT_DEFAULT, &frames));
  EXPECT_EQ(frames, 13);
}

TEST_F(Continuity, IsTheEndOfEachClipToo) {
  Pipeline pipeline(kTakes + "num-clips=50 continuity=last-frame ! fakesink");
  pipeline.run();
  int clips = 0, done = 0;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_ELEMENT)) {
    clips += gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip");
    done += gst_message_has_name(const_cast<GstMessage *>(message), "wan-clip-done");
  }
  EXPECT_EQ(clips, 50);
  EXPECT_EQ(done, 50);
}

TEST_F(Continuity, NeedsNoTransition) {
  EXPECT_THAT(error_of(kTakes + "continuity=last-frame transition=crossfade ! fakesink").message,
              HasSubstr("exclude each other"));
}

}  // namespace
}  // namespace wan::test
