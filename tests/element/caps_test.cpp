// Negotiation: what downstream leaves open, what it fixes, and what cannot be made.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/app/gstappsink.h>
#include <gst/base/gstbasesrc.h>
#include <gst/check/gstharness.h>
#include <gst/video/video.h>

#include <thread>

#include "support.h"

namespace wan::test {
namespace {

struct Negotiated {
  GstVideoInfo info = {};
  bool ok = false;
};

// The caps that the source settles on, without making more than one frame.
Negotiated negotiate(const std::string &filter) {
  Pipeline pipeline("wansrc device=cpu num-frames=1 steps=1 ! " + filter + kSink);
  pipeline.run();
  Negotiated result;
  if (pipeline.samples().empty()) return result;
  result.ok = gst_video_info_from_caps(&result.info, gst_sample_get_caps(pipeline.samples().front().get()));
  return result;
}

std::string colorimetry(const GstVideoInfo &info) {
  gchar *text = gst_video_colorimetry_to_string(&info.colorimetry);
  std::string result = text ? text : "";
  g_free(text);
  return result;
}

TEST(Caps, OpenOnesAreTheCheckpointsOwn) {
  const auto [info, ok] = negotiate("video/x-raw");
  ASSERT_TRUE(ok);
  EXPECT_EQ(info.width, 160);
  EXPECT_EQ(info.height, 96);
  EXPECT_EQ(info.fps_n, 16);
  EXPECT_EQ(info.fps_d, 1);
  EXPECT_EQ(info.par_n, 1);
  EXPECT_EQ(info.par_d, 1);
  EXPECT_EQ(info.interlace_mode, GST_VIDEO_INTERLACE_MODE_PROGRESSIVE);
}

TEST(Caps, ARangeBecomesTheNearestSizeThatCanBeMade) {
  const auto [info, ok] = negotiate("video/x-raw,width=[1,40],height=[17,63],framerate=[1/1,10/1]");
  ASSERT_TRUE(ok);
  EXPECT_EQ(info.width, 32);
  EXPECT_EQ(info.height, 48);
  EXPECT_EQ(info.fps_n, 10);
}

TEST(Caps, AListLosesTheSizesThatCannotBeMade) {
  const auto [info, ok] = negotiate("video/x-raw,width={40,48,50},height=32");
  ASSERT_TRUE(ok);
  EXPECT_EQ(info.width, 48);
}

TEST(Caps, FractionalRatesAreKept) {
  const auto [info, ok] = negotiate("video/x-raw,width=32,height=32,framerate=24000/1001");
  ASSERT_TRUE(ok);
  EXPECT_EQ(info.fps_n, 24000);
  EXPECT_EQ(info.fps_d, 1001);
}

class EveryFormat : public testing::TestWithParam<const char *> {};

TEST_P(EveryFormat, FramesFillTheirLayout) {
  const std::string format = GetParam();
  Pipeline pipeline(kSmallSource + kSmallCaps + ",format=" + format + kSink);
  pipeline.run();
  ASSERT_EQ(pipeline.samples().size(), 5u);
  for (const auto &sample : pipeline.samples()) {
    GstVideoInfo info;
    ASSERT_TRUE(gst_video_info_from_caps(&info, gst_sample_get_caps(sample.get())));
    EXPECT_STREQ(gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info)), format.c_str());
    GstVideoFrame frame;
    ASSERT_TRUE(gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample.get()), GST_MAP_READ));
    EXPECT_EQ(frame.map[0].size, info.size);
    gst_video_frame_unmap(&frame);
  }
}

TEST_P(EveryFormat, ShowsTheSamePicture) {
  const std::string to_rgb = " ! videoconvert chroma-resampler=nearest ! video/x-raw,format=RGB" + kSink;
  const std::string expected = video_of(kSmallSource + kSmallCaps + ",format=RGB" + kSink);
  const std::string video = video_of(kSmallSource + kSmallCaps + ",format=" + GetParam() + to_rgb);
  ASSERT_EQ(video.size(), expected.size());
  double difference = 0;
  for (size_t i = 0; i < video.size(); ++i) difference += std::abs(guint8(video[i]) - guint8(expected[i]));
  const bool yuv =
      GST_VIDEO_FORMAT_INFO_IS_YUV(gst_video_format_get_info(gst_video_format_from_string(GetParam())));
  EXPECT_LE(difference / video.size(), yuv ? 12 : 0);  // halved chroma of a noisy picture
}

INSTANTIATE_TEST_SUITE_P(Caps, EveryFormat,
                         testing::Values("NV12", "I420", "RGB", "RGBx", "BGRx", "RGBA", "BGRA"),
                         [](const auto &info) { return std::string(info.param); });

TEST(Caps, FourthByteIsOpaque) {
  for (const char *format : {"RGBx", "BGRx", "RGBA", "BGRA"}) {
    const std::string video = video_of(kSmallSource + kSmallCaps + ",format=" + format + kSink);
    for (size_t i = 3; i < video.size(); i += 4) ASSERT_EQ(guint8(video[i]), 255) << format;
  }
}

TEST(Colorimetry, OpenOneIsUsualForTheSize) {
  EXPECT_EQ(colorimetry(negotiate("video/x-raw,format=NV12,width=32,height=32").info), "bt601");
  EXPECT_EQ(colorimetry(negotiate("video/x-raw,format=NV12,width=16,height=720").info), "bt709");
  EXPECT_EQ(colorimetry(negotiate("video/x-raw,format=RGB,width=32,height=32").info), "sRGB");
}

TEST(Colorimetry, TheWantedOneIsMade) {
  const std::string source = kSmallSource + kSmallCaps + ",format=I420,colorimetry=";
  const std::string sink = kSink;
  const std::string bt601 = video_of(source + "bt601" + sink);
  const std::string bt709 = video_of(source + "bt709" + sink);
  const std::string full = video_of(source + "1:4:7:1" + sink);
  EXPECT_EQ(bt601.size(), bt709.size());
  EXPECT_NE(bt601, bt709);
  EXPECT_NE(bt601, full);
}

TEST(Colorimetry, OfAListOneThatCanBeMadeIsTaken) {
  const auto chosen = [](const std::string &list) {
    return colorimetry(
        negotiate("video/x-raw,format=I420,width=32,height=32,colorimetry=(string)" + list).info);
  };
  EXPECT_EQ(chosen("{bt2020,bt709}"), "bt709");
  EXPECT_EQ(chosen("{bt2020,bt709,bt601}"), "bt601");
  EXPECT_EQ(chosen("{2:6:5:1,sRGB,1:4:7:1}"), "1:4:7:1");
}

TEST(Colorimetry, OthersAreRefused) {
  for (const char *filter : {"format=I420,colorimetry=bt2020", "format=RGB,colorimetry=2:1:5:1"}) {
    const Error error = error_of(kSmallSource + kSmallCaps + "," + filter + kSink);
    EXPECT_EQ(error.domain, "gst-resource-error-quark");
    EXPECT_EQ(error.code, GST_RESOURCE_ERROR_SETTINGS);
    EXPECT_NE(error.message.find("colorimetry"), std::string::npos) << error.message;
  }
}

TEST(Caps, SizesThatAreNoMultipleOf16AreRefusedBeforeLoading) {
  for (const char *size : {"width=100,height=96", "width=160,height=100"}) {
    Pipeline pipeline("wansrc ! video/x-raw," + std::string(size) + kSink);
    pipeline.run();
    const auto error = first_error(pipeline);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->domain, "gst-resource-error-quark");
    EXPECT_EQ(error->code, GST_RESOURCE_ERROR_SETTINGS);
    EXPECT_NE(error->message.find("width"), std::string::npos) << error->message;
    EXPECT_NE(error->message.find("height"), std::string::npos) << error->message;
    EXPECT_TRUE(pipeline.messages(GST_MESSAGE_PROGRESS).empty()) << "the model was loaded";
  }
}

TEST(Caps, SizesBeyondAnyMemoryAreRefused) {
  const Error error = error_of("wansrc ! video/x-raw,width=2147483632,height=2147483632" + kSink);
  EXPECT_EQ(error.domain, "gst-resource-error-quark");
  EXPECT_EQ(error.code, GST_RESOURCE_ERROR_SETTINGS);
}

TEST(Caps, StayAsTheyAreForARun) {
  const std::string launch =
      stub_source("") + "num-frames=5 ! appsink name=sink sync=false wait-on-eos=false";
  Pipeline pipeline(launch);
  const Ptr<GstElement> source = pipeline.find("src");
  const Ptr<GstPad> pad(gst_element_get_static_pad(source.get(), "src"));
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstCaps> before(gst_pad_get_current_caps(pad.get()));
  gst_pad_mark_reconfigure(pad.get());
  pipeline.run();
  ASSERT_EQ(pipeline.samples().size(), 5u);
  for (const auto &sample : pipeline.samples())
    EXPECT_TRUE(gst_caps_is_equal(gst_sample_get_caps(sample.get()), before.get()));
}

// Plays and has downstream ask for other caps once frames have come.
void change_caps_while_playing(Pipeline &pipeline, const char *caps) {
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstElement> sink = pipeline.find("sink");
  ASSERT_TRUE(Ptr<GstSample>(gst_app_sink_pull_sample(GST_APP_SINK(sink.get()))));
  const Ptr<GstCaps> other(gst_caps_from_string(caps));
  g_object_set(pipeline.find("filter").get(), "caps", other.get(), nullptr);
}

std::string filtered_stub(const char *settings) {
  return stub_source("chunk=10") + settings +
         " ! capsfilter name=filter caps=video/x-raw,format=I420 ! "
         "appsink name=sink sync=false wait-on-eos=false max-buffers=1";
}

TEST(SecondNegotiation, WithAnAddedFieldKeepsTheRun) {
  for (const char *added : {"chroma-site=(string)mpeg2", "multiview-mode=(string)mono", "max-framerate=60/1",
                            "colorimetry=(string){bt709,bt601}"}) {
    Pipeline pipeline(filtered_stub("num-frames=33"));
    change_caps_while_playing(pipeline, (std::string("video/x-raw,format=I420,") + added).c_str());
    const Ptr<GstElement> sink = pipeline.find("sink");
    guint64 next = 1;
    while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get())))
      EXPECT_EQ(GST_BUFFER_OFFSET(gst_sample_get_buffer(Ptr<GstSample>(sample).get())), next++) << added;
    EXPECT_EQ(next, 33u) << added;
  }
}

TEST(SecondNegotiation, WithoutAFieldOfTheFirstKeepsTheRun) {
  Pipeline pipeline(stub_source("chunk=10") +
                    "num-frames=33 ! capsfilter name=filter caps=video/x-raw,chroma-site=(string)mpeg2 ! "
                    "appsink name=sink sync=false wait-on-eos=false");
  change_caps_while_playing(pipeline, "video/x-raw,chroma-site=(string)jpeg");
  EXPECT_NE(pipeline.wait(GST_MESSAGE_EOS), nullptr);
  EXPECT_FALSE(first_error(pipeline));
}

TEST(SecondNegotiation, WithOtherFramesIsRefused) {
  for (const char *other :
       {"video/x-raw,format=I420,width=96", "video/x-raw,format=NV12",
        "video/x-raw,format=I420,framerate=50/1", "video/x-raw,format=I420,colorimetry=(string)bt709"}) {
    Pipeline pipeline(filtered_stub("num-clips=-1"));
    change_caps_while_playing(pipeline, other);
    const Ptr<GstElement> sink = pipeline.find("sink");
    while (GstSample *sample = gst_app_sink_pull_sample(GST_APP_SINK(sink.get()))) gst_sample_unref(sample);
    pipeline.wait(GST_MESSAGE_ERROR);
    const auto error = first_error(pipeline);
    ASSERT_TRUE(error) << other;
    EXPECT_EQ(error->domain, "gst-resource-error-quark");
    EXPECT_EQ(error->code, GST_RESOURCE_ERROR_SETTINGS);
    EXPECT_NE(error->message.find("other caps while wansrc plays"), std::string::npos) << error->message;
  }
}

TEST(SecondNegotiation, WithAnotherNeighbourKeepsTheRun) {
  for (const char *live : {"", "is-live=true "}) {
    Pipeline pipeline(stub_source("chunk=5") + live + "num-clips=-1 ! fakesink name=sink sync=true");
    const Ptr<GstElement> source = pipeline.find("src");
    const Ptr<GstPad> pad(gst_element_get_static_pad(source.get(), "src"));
    pipeline.reach(GST_STATE_PLAYING);
    for (const char *next : {"capsfilter caps=video/x-raw,multiview-mode=mono ! fakesink sync=true",
                             "videoconvert ! video/x-raw,format=RGB ! fakesink sync=true",
                             "capsfilter caps=video/x-raw,chroma-site=jpeg ! fakesink sync=true",
                             "videoscale ! video/x-raw,width=100 ! fakesink sync=true"}) {
      const auto relink = [](GstPad *pad, GstPadProbeInfo *, gpointer next) {
        const Ptr<GstPad> peer(gst_pad_get_peer(pad));
        const Ptr<GstElement> old(gst_pad_get_parent_element(peer.get()));
        GstObject *bin = gst_object_get_parent(GST_OBJECT(old.get()));
        gst_pad_unlink(pad, peer.get());
        gst_element_set_locked_state(old.get(), TRUE);
        gst_element_set_state(old.get(), GST_STATE_NULL);
        gst_bin_remove(GST_BIN(bin), old.get());
        GstElement *element = gst_parse_bin_from_description(static_cast<char *>(next), TRUE, nullptr);
        gst_bin_add(GST_BIN(bin), element);
        const Ptr<GstPad> sink(gst_element_get_static_pad(element, "sink"));
        EXPECT_EQ(gst_pad_link(pad, sink.get()), GST_PAD_LINK_OK);
        gst_element_sync_state_with_parent(element);
        gst_object_unref(bin);
        return GST_PAD_PROBE_REMOVE;
      };
      const auto pushed = [&pipeline] {
        guint64 frames = 0;
        gst_structure_get_uint64(pipeline.stats().get(), "frames-pushed", &frames);
        return frames;
      };
      gst_pad_add_probe(pad.get(), GST_PAD_PROBE_TYPE_IDLE, relink, const_cast<char *>(next), nullptr);
      const guint64 before = pushed();
      for (int i = 0; i < 3000 && pushed() < before + 5; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      EXPECT_GE(pushed(), before + 5) << live << next;
      const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
      EXPECT_FALSE(Ptr<GstMessage>(gst_bus_pop_filtered(bus.get(), GST_MESSAGE_ERROR))) << live << next;
    }
  }
}

TEST(Negotiation, InterruptedByAFlushGoesOnAfterIt) {
  Pipeline pipeline(stub_source("") + "num-frames=9" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  // The message of loading comes from the middle of the negotiation.
  const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
  const auto flush = [](GstBus *, GstMessage *message, gpointer source) {
    if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_PROGRESS) return GST_BUS_PASS;
    if (GST_PAD_IS_FLUSHING(GST_BASE_SRC_PAD(source))) return GST_BUS_PASS;
    gst_element_send_event(GST_ELEMENT(source), gst_event_new_flush_start());
    return GST_BUS_PASS;
  };
  gst_bus_set_sync_handler(bus.get(), flush, source.get(), nullptr);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait(GST_MESSAGE_PROGRESS), nullptr);
  gst_bus_set_sync_handler(bus.get(), nullptr, nullptr, nullptr);
  gst_element_send_event(source.get(), gst_event_new_flush_stop(TRUE));
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 9u);
}

TEST(Caps, WithoutRateAndSizeGetTheCheckpointsOwn) {
  Pipeline pipeline(stub_source("") + "! interlace ! fakesink");
  const Ptr<GstPad> pad(gst_element_get_static_pad(pipeline.find("src").get(), "src"));
  ASSERT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
  const Ptr<GstCaps> caps(gst_pad_get_current_caps(pad.get()));
  GstVideoInfo info;
  ASSERT_TRUE(caps && gst_video_info_from_caps(&info, caps.get()));
  EXPECT_EQ(info.width, 64);
  EXPECT_EQ(info.fps_n, 25);
}

TEST(Caps, AlternativesThatCannotBeMadeArePassedOver) {
  const auto format = [](const char *filter) {
    const auto [info, ok] = negotiate(filter);
    EXPECT_TRUE(ok) << filter;
    return ok ? std::string(gst_video_format_to_string(GST_VIDEO_INFO_FORMAT(&info))) : "";
  };
  EXPECT_EQ(format("video/x-raw,format=I420,colorimetry=bt2020;video/x-raw,format=NV12"), "NV12");
  EXPECT_EQ(format("video/x-raw,format={I420,RGB},colorimetry=(string)1:1:5:1"), "RGB");
  EXPECT_EQ(format("video/x-raw,width=2147483632,height=2147483632;video/x-raw,format=BGRx"), "BGRx");
}

TEST(Caps, AScalerMakesAnyOtherSize) {
  Pipeline pipeline(stub_source("") + "! videoconvertscale ! video/x-raw,width=100,height=50" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 9u);
}

TEST(Caps, AreThereBeforeTheFirstFrame) {
  // In a bin, since a harness takes an element with a template of a sink pad for no source, and starts it.
  GstElement *bin = gst_parse_bin_from_description("wansrc device=cpu num-frames=1 steps=1", TRUE, nullptr);
  GstHarness *harness = gst_harness_new_with_element(bin, nullptr, "src");
  gst_object_unref(bin);
  gst_harness_set_sink_caps_str(harness, "video/x-raw,format=I420,width=32,height=48");
  gst_harness_play(harness);
  GstBuffer *buffer = gst_harness_pull(harness);
  ASSERT_NE(buffer, nullptr);
  const Ptr<GstCaps> caps(gst_pad_get_current_caps(harness->sinkpad));
  ASSERT_TRUE(caps);
  GstVideoInfo info;
  EXPECT_TRUE(gst_video_info_from_caps(&info, caps.get()));
  EXPECT_EQ(info.height, 48);
  EXPECT_EQ(gst_buffer_get_size(buffer), info.size);
  gst_buffer_unref(buffer);
  gst_harness_teardown(harness);
}

}  // namespace
}  // namespace wan::test
