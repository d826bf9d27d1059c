// The element's face: metadata, properties, statistics, tags.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include "support.h"

namespace wan::test {
namespace {

Ptr<GstElement> make_source() {
  GstElement *source = gst_element_factory_make("wansrc", nullptr);
  if (!source) throw std::runtime_error("no element wansrc");
  return Ptr<GstElement>(GST_ELEMENT(gst_object_ref_sink(source)));
}

template <typename T>
T get(GstElement *source, const char *name) {
  T value;
  g_object_get(source, name, &value, nullptr);
  return value;
}

std::string get_text(GstElement *source, const char *name) {
  gchar *value = get<gchar *>(source, name);
  std::string text = value;
  g_free(value);
  return text;
}

TEST(Element, DescribesItself) {
  const Ptr<GstElement> source = make_source();
  GstElementClass *klass = GST_ELEMENT_GET_CLASS(source.get());
  EXPECT_STREQ(gst_element_class_get_metadata(klass, GST_ELEMENT_METADATA_KLASS), "Source/Video");
  GstElementFactory *factory = gst_element_get_factory(source.get());
  EXPECT_EQ(gst_plugin_feature_get_rank(GST_PLUGIN_FEATURE(factory)), guint(GST_RANK_NONE));
}

std::vector<double> sigmas(GstElement *source) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, GST_TYPE_ARRAY);
  g_object_get_property(G_OBJECT(source), "sigmas", &value);
  std::vector<double> result;
  for (guint i = 0; i < gst_value_array_get_size(&value); ++i)
    result.push_back(g_value_get_double(gst_value_array_get_value(&value, i)));
  g_value_unset(&value);
  return result;
}

TEST(Properties, Defaults) {
  const Ptr<GstElement> source = make_source();
  for (const char *name : {"model", "prompt", "negative-prompt", "engine"})
    EXPECT_EQ(get_text(source.get(), name), "");
  EXPECT_EQ(get_text(source.get(), "device"), "auto");
  EXPECT_EQ(get<gint64>(source.get(), "seed"), -1);
  EXPECT_EQ(get<gint>(source.get(), "num-frames"), 0);
  EXPECT_EQ(get<gint>(source.get(), "num-clips"), 1);
  EXPECT_EQ(get<gint>(source.get(), "steps"), 0);
  for (const char *name : {"guidance-scale", "guidance-scale-2", "flow-shift"})
    EXPECT_EQ(get<gdouble>(source.get(), name), -1) << name;
  EXPECT_EQ(get<guint>(source.get(), "queue-size"), 4u);
  EXPECT_TRUE(sigmas(source.get()).empty());
  EXPECT_EQ(get<gint>(source.get(), "cache"), 0);
  EXPECT_EQ(get<gdouble>(source.get(), "cache-threshold"), 0.05);
}

TEST(Properties, RoundTrip) {
  const Ptr<GstElement> source = make_source();
  g_object_set(source.get(), "seed", gint64(G_MAXINT64), "prompt", "ein Stern ★", "guidance-scale", 2.5,
               "num-clips", -1, nullptr);
  gst_util_set_object_arg(G_OBJECT(source.get()), "scheduler", "euler");
  gst_util_set_object_arg(G_OBJECT(source.get()), "dtype", "bfloat16");
  gst_util_set_object_arg(G_OBJECT(source.get()), "memory", "one-expert");
  EXPECT_EQ(get<gint64>(source.get(), "seed"), G_MAXINT64);
  EXPECT_EQ(get_text(source.get(), "prompt"), "ein Stern ★");
  EXPECT_EQ(get<gdouble>(source.get(), "guidance-scale"), 2.5);
  EXPECT_EQ(get<gint>(source.get(), "num-clips"), -1);
  EXPECT_EQ(get<gint>(source.get(), "scheduler"), 2);
  EXPECT_EQ(get<gint>(source.get(), "dtype"), 2);
  gst_util_set_object_arg(G_OBJECT(source.get()), "sigmas", "<1, 0.75, 0.5>");
  gst_util_set_object_arg(G_OBJECT(source.get()), "cache", "first-block");
  EXPECT_EQ(sigmas(source.get()), (std::vector{1.0, 0.75, 0.5}));
  EXPECT_EQ(get<gint>(source.get(), "cache"), 1);
  gst_util_set_object_arg(G_OBJECT(source.get()), "sigmas", "<>");
  EXPECT_TRUE(sigmas(source.get()).empty());
  EXPECT_EQ(get<gint>(source.get(), "memory"), 2);
}

TEST(Properties, AllSayWhatTheyAre) {
  const Ptr<GstElement> source = make_source();
  guint count = 0;
  GParamSpec **specs = g_object_class_list_properties(G_OBJECT_GET_CLASS(source.get()), &count);
  for (guint i = 0; i < count; ++i) {
    if (specs[i]->owner_type != G_OBJECT_TYPE(source.get())) continue;
    EXPECT_GT(std::string(g_param_spec_get_blurb(specs[i])).size(), 20u) << specs[i]->name;
    if (!(specs[i]->flags & G_PARAM_WRITABLE) || std::string(specs[i]->name) == "engine") continue;
    EXPECT_TRUE(specs[i]->flags & (GST_PARAM_MUTABLE_READY | GST_PARAM_MUTABLE_PLAYING)) << specs[i]->name;
  }
  g_free(specs);
}

TEST(Properties, NullTextIsEmpty) {
  const Ptr<GstElement> source = make_source();
  g_object_set(source.get(), "prompt", nullptr, "model", nullptr, nullptr);
  EXPECT_EQ(get_text(source.get(), "prompt"), "");
}

// The comment tag of a pipeline's last clip.
std::string comment_in(const Pipeline &pipeline) {
  std::string comment;
  for (const GstMessage *message : pipeline.messages(GST_MESSAGE_TAG)) {
    GstTagList *tags = nullptr;
    gst_message_parse_tag(const_cast<GstMessage *>(message), &tags);
    gchar *text = nullptr;
    if (gst_tag_list_get_string(tags, GST_TAG_COMMENT, &text)) comment = text;
    g_free(text);
    gst_tag_list_unref(tags);
  }
  return comment;
}

// That of a run on the stub engine, whose checkpoint suggests 9 frames, 4 steps, 5.0/3.0, 2.0, Euler.
std::string comment_of(const std::string &properties, const std::string &prompt = "") {
  Pipeline pipeline(stub_source(prompt) + properties + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  return comment_in(pipeline);
}

// What ends each comment.
const std::string kStubCaps = " ! capsfilter caps=\"video/x-raw,width=64,height=48,framerate=25/1\"";

TEST(Properties, OpenOnesAreTheCheckpointsOwn) {
  EXPECT_EQ(comment_of("seed=7"),
            "seed=7 num-frames=9 steps=4 guidance-scale=5 guidance-scale-2=3 flow-shift=2 scheduler=euler" +
                kStubCaps);
}

TEST(Properties, OneGuidanceScaleCountsForBothExperts) {
  EXPECT_EQ(
      comment_of("seed=7 guidance-scale=6.5"),
      "seed=7 num-frames=9 steps=4 guidance-scale=6.5 guidance-scale-2=6.5 flow-shift=2 scheduler=euler" +
          kStubCaps);
  EXPECT_EQ(comment_of("seed=7 guidance-scale-2=1"),
            "seed=7 num-frames=9 steps=4 guidance-scale=5 guidance-scale-2=1 flow-shift=2 scheduler=euler" +
                kStubCaps);
}

TEST(Properties, GivenOnesCount) {
  EXPECT_EQ(
      comment_of(
          "seed=7 num-frames=5 steps=2 guidance-scale=1 guidance-scale-2=2 flow-shift=0.5 scheduler=unipc "
          "negative-prompt=blurry"),
      "seed=7 num-frames=5 steps=2 guidance-scale=1 guidance-scale-2=2 flow-shift=0.5 scheduler=unipc "
      "negative-prompt=\"blurry\"" +
          kStubCaps);
}

TEST(Properties, SigmasAndCacheCount) {
  EXPECT_EQ(comment_of("seed=7 sigmas=<1,0.75,0.5,0.25> cache=first-block cache-threshold=0.2"),
            "seed=7 num-frames=9 steps=4 guidance-scale=5 guidance-scale-2=3 flow-shift=2 scheduler=euler "
            "sigmas=\"<1,0.75,0.5,0.25>\" cache=first-block cache-threshold=0.2" +
                kStubCaps);
}

TEST(Properties, AnySeedOf64BitsIsOne) {
  for (const char *seed : {"0", "9223372036854775807", "9223372036854775808", "18446744073709551614"})
    EXPECT_EQ(comment_of(std::string("seed=") + seed).find(std::string("seed=") + seed + " "), 0u) << seed;
  const Ptr<GstElement> source = make_source();
  g_object_set(source.get(), "seed", guint64(18446744073709551614u), nullptr);
  EXPECT_EQ(get<guint64>(source.get(), "seed"), 18446744073709551614u);
}

TEST(Properties, SeedsCountOnBeyondTheGreatest) {
  Pipeline pipeline(stub_source("") + "seed=18446744073709551614 num-clips=2 ! fakesink");
  pipeline.run();
  guint64 seed = 1;
  gst_structure_get_uint64(pipeline.stats().get(), "seed", &seed);
  EXPECT_EQ(seed, 0u) << "the one between stands for a random one";
}

// Runs a launch line whose source is "wansrc" with these properties, and its comment as one.
void expect_same_video(const std::string &source, const std::string &properties) {
  const std::string head = source + " name=src ";
  Pipeline pipeline(head + properties + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  std::string video;
  const std::string comment = comment_in(pipeline);
  for (const auto &sample : pipeline.samples()) video += bytes(sample.get());
  Pipeline again(head + comment + " ! video/x-raw" + kSink);  // a format could stand there
  for (const char *text : {"prompt", "negative-prompt"})
    EXPECT_EQ(get_text(pipeline.find("src").get(), text), get_text(again.find("src").get(), text)) << comment;
  again.run();
  std::string video_again;
  for (const auto &sample : again.samples()) video_again += bytes(sample.get());
  EXPECT_TRUE(!video.empty() && video == video_again) << comment;
}

TEST(Comment, IsALaunchLineThatMakesTheVideoAgain) {
  expect_same_video(
      "wansrc",
      "seed=18446744073709551614 num-frames=1 flow-shift=2.3456789012345 guidance-scale=3.1415926535 "
      "sigmas=<0.98765432,0.7123456> device=cpu dtype=float32 prompt=cat "
      "negative-prompt=\"a \\\"blue\\\" sky\" ! video/x-raw,width=64,height=32");
}

TEST(Comment, QuotesAnyText) {
  for (const char *text :
       {"a \"quoted\" \\ word", "\"all quoted\"", "ends in \\", "\\", "\"", "\\\"", "NULL", " spaces ",
        "two\nlines\tand a tab", "ein Stern \u2605 ! <a,b>", "a=b ! fakesink", "'single'"}) {
    Pipeline pipeline(stub_source("") + "num-frames=1" + kSink);
    g_object_set(pipeline.find("src").get(), "prompt", text, "negative-prompt", text, nullptr);
    pipeline.run();
    const std::string comment = comment_in(pipeline);
    Pipeline again(stub_source("") + comment + kSink);
    for (const char *property : {"prompt", "negative-prompt"})
      EXPECT_EQ(get_text(again.find("src").get(), property), text) << comment;
  }
}

TEST(Comment, NamesWhatMakesTheModel) {
  Pipeline pipeline(stub_source("") + "quantization=fp8" + kSink);
  const Ptr<GstElement> source = pipeline.find("src");
  g_object_set(source.get(), "model", "/a b/\"c\"", nullptr);
  gst_util_set_object_arg(G_OBJECT(source.get()), "loras",
                          "<\"lora,path=\\\"/x\\ y.safetensors\\\",strength=(double)0.5\">");
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline)) << first_error(pipeline)->message;
  const std::string comment = comment_in(pipeline);
  Pipeline again(stub_source("") + comment + kSink);
  EXPECT_EQ(get_text(again.find("src").get(), "model"), "/a b/\"c\"") << comment;
  EXPECT_EQ(get<gint>(again.find("src").get(), "quantization"), 1);
  again.run();
  EXPECT_EQ(comment_in(again).substr(comment_in(again).find(" model=")),
            comment.substr(comment.find(" model=")));
  GValue loras = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(again.find("src").get()), "loras", &loras);
  ASSERT_EQ(gst_value_array_get_size(&loras), 1u) << comment;
  const GstStructure *lora = gst_value_get_structure(gst_value_array_get_value(&loras, 0));
  EXPECT_STREQ(gst_structure_get_string(lora, "path"), "/x y.safetensors");
  g_value_unset(&loras);
}

TEST(Stats, TellWhatTheCacheShortened) {
  for (const auto &[cache, expected] : {std::pair{"none", 0}, {"first-block", 4}}) {
    Pipeline pipeline(stub_source("") + "cache=" + cache + " ! fakesink");
    pipeline.run();
    gint cached = -1;
    gst_structure_get_int(pipeline.stats().get(), "cached-forwards", &cached);
    EXPECT_EQ(cached, expected) << cache;
  }
}

TEST(Stats, FollowARun) {
  Pipeline pipeline(stub_source("") + "seed=42 num-clips=2 ! fakesink");
  Ptr<GstStructure> stats = pipeline.stats();
  EXPECT_STREQ(gst_structure_get_string(stats.get(), "stage"), "idle");
  int notified = 0;
  g_signal_connect(pipeline.find("src").get(), "notify::stats",
                   G_CALLBACK(+[](GObject *, GParamSpec *, int *notified) { ++*notified; }), &notified);
  pipeline.run();
  stats = pipeline.stats();
  gint clip = 0, chunk = 0, step = 0, steps = 0;
  guint level = 99;
  guint64 seed = 0, pushed = 0, gpu = 0, peak = 0, pinned = 0, pool = 0;
  gdouble load = 0, denoise = 0, first_frame = 0;
  ASSERT_TRUE(gst_structure_get(stats.get(), "clip", G_TYPE_INT, &clip, "chunk", G_TYPE_INT, &chunk, "step",
                                G_TYPE_INT, &step, "steps", G_TYPE_INT, &steps, "queue-level", G_TYPE_UINT,
                                &level, "seed", G_TYPE_UINT64, &seed, "frames-pushed", G_TYPE_UINT64, &pushed,
                                "gpu-bytes", G_TYPE_UINT64, &gpu, "gpu-peak-bytes", G_TYPE_UINT64, &peak,
                                "pinned-bytes", G_TYPE_UINT64, &pinned, "load-seconds", G_TYPE_DOUBLE, &load,
                                "denoise-seconds", G_TYPE_DOUBLE, &denoise, "pool-bytes", G_TYPE_UINT64,
                                &pool, "first-frame-seconds", G_TYPE_DOUBLE, &first_frame, nullptr));
  EXPECT_EQ(clip, 1);
  EXPECT_EQ(chunk, 2);
  EXPECT_EQ(step, 4);
  EXPECT_EQ(steps, 4);
  EXPECT_EQ(level, 0u);
  EXPECT_EQ(seed, 43u);
  EXPECT_EQ(pushed, 18u);
  EXPECT_EQ(gpu, 1000u);
  EXPECT_EQ(peak, 2000u);
  EXPECT_EQ(pinned, 3000u);
  EXPECT_EQ(pool, 4000u);
  EXPECT_GT(first_frame, 0);
  EXPECT_EQ(notified, 2) << "once a clip";
  EXPECT_EQ(load, 1);
  EXPECT_EQ(denoise, 2);
  EXPECT_STREQ(gst_structure_get_string(stats.get(), "stage"), "idle");
  EXPECT_STREQ(gst_structure_get_string(stats.get(), "memory-mode"), "stream");
  EXPECT_STREQ(gst_structure_get_string(stats.get(), "device"), "stub");
}

// ---- presets

TEST(Preset, OfFourStepsIsShipped) {
  Pipeline pipeline(stub_source("kept") + "seed=9 ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  ASSERT_TRUE(gst_preset_load_preset(GST_PRESET(source.get()), "4-steps"));
  gchar *prompt = nullptr;
  gint64 seed = 0;
  double guidance = 0, shift = 0;
  int scheduler = 0;
  g_object_get(source.get(), "prompt", &prompt, "seed", &seed, "guidance-scale", &guidance, "flow-shift",
               &shift, "scheduler", &scheduler, nullptr);
  EXPECT_STREQ(prompt, "kept");
  EXPECT_EQ(std::make_tuple(seed, guidance, shift, scheduler), std::make_tuple(9, 1., 5., 2));
  GValue sigmas = G_VALUE_INIT;
  g_value_init(&sigmas, GST_TYPE_ARRAY);
  g_object_get_property(G_OBJECT(source.get()), "sigmas", &sigmas);
  EXPECT_EQ(gst_value_array_get_size(&sigmas), 4u);
  g_value_unset(&sigmas);
  g_free(prompt);
}

TEST(Preset, HoldsHowClipsAreMadeAndNotWhatTheyShow) {
  Pipeline pipeline(stub_source("") + "! fakesink");
  gchar **names = gst_preset_get_property_names(GST_PRESET(pipeline.find("src").get()));
  const auto has = [names](const char *name) { return g_strv_contains(names, name); };
  EXPECT_TRUE(has("steps") && has("negative-prompt") && has("cache-threshold"));
  EXPECT_FALSE(has("prompt") || has("seed") || has("model") || has("is-live"));
  g_strfreev(names);
}

}  // namespace
}  // namespace wan::test
