// The property loras: a real file, merged into the embedded model's experts.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <cstdlib>
#include <fstream>

#include "support.h"

namespace wan::test {
namespace {

namespace fs = std::filesystem;

// Adds 1 to what the output projection of an expert adds: "diffusion_model.head.head.diff_b", 64 floats.
class LoraFile {
 public:
  LoraFile() {
    std::string name = (fs::temp_directory_path() / "gst-wan-lora-XXXXXX").string();
    if (!mkdtemp(name.data())) throw std::runtime_error("no temporary directory");
    directory_ = name;
    const std::string header =
        R"({"diffusion_model.head.head.diff_b":{"dtype":"F32","shape":[64],"data_offsets":[0,256]}})";
    const uint64_t length = header.size();
    const std::vector<float> ones(64, 1);
    std::ofstream file(path(), std::ios::binary);
    file.write(reinterpret_cast<const char *>(&length), sizeof length);
    file << header;
    file.write(reinterpret_cast<const char *>(ones.data()), 256);
  }
  ~LoraFile() { fs::remove_all(directory_); }

  std::string path() const { return directory_ / "lora.safetensors"; }

 private:
  fs::path directory_;
};

std::string launch(const std::string &loras) {
  return kSmallSource + (loras.empty() ? "" : "loras=" + loras) + kSmallCaps + kSink;
}

std::string structure(const std::string &path, const std::string &rest = "") {
  return "<\"lora,path=" + path + rest + "\">";
}

TEST(Loras, ChangeTheVideoByTheirStrength) {
  const LoraFile lora;
  const std::string plain = video_of(launch(""));
  EXPECT_EQ(video_of(launch(structure(lora.path(), ",strength=0.0"))), plain);
  const std::string full = video_of(launch(structure(lora.path())));
  EXPECT_NE(full, plain);
  // One step, which is the high-noise expert's.
  EXPECT_EQ(video_of(launch(structure(lora.path(), ",strength-2=0"))), full);
  EXPECT_EQ(video_of(launch(structure(lora.path(), ",strength=0,strength-2=1"))), plain);
  const std::string half = "\"lora,path=" + lora.path() + ",strength=(double)0.5\"";
  EXPECT_NE(video_of(launch("<" + half + "," + half + ">")), video_of(launch("<" + half + ">")));
}

TEST(Loras, ChangedInReadyTheModelIsLoadedAnew) {
  const LoraFile lora;
  Pipeline pipeline(launch(""));
  const auto loads_in_paused = [&pipeline] {
    pipeline.set_state(GST_STATE_PAUSED);
    const GstMessage *message = pipeline.wait(GST_MESSAGE_PROGRESS);
    gchar *text = nullptr;
    if (message) gst_message_parse_progress(const_cast<GstMessage *>(message), nullptr, nullptr, &text);
    const bool loads = g_str_has_prefix(text, "loading the model ");
    g_free(text);
    EXPECT_EQ(pipeline.reach(GST_STATE_PAUSED), GST_STATE_CHANGE_SUCCESS);
    const Ptr<GstBus> bus(gst_element_get_bus(pipeline.get()));
    while (GstMessage *rest = gst_bus_pop_filtered(bus.get(), GST_MESSAGE_PROGRESS)) gst_message_unref(rest);
    EXPECT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
    return loads;
  };
  EXPECT_TRUE(loads_in_paused());
  EXPECT_FALSE(loads_in_paused());
  gst_util_set_object_arg(G_OBJECT(pipeline.find("src").get()), "loras", structure(lora.path()).c_str());
  EXPECT_TRUE(loads_in_paused());
  EXPECT_FALSE(loads_in_paused());
}

TEST(Loras, ReadBackAsTheyWereSet) {
  Pipeline pipeline("wansrc name=src ! fakesink");
  const Ptr<GstElement> source = pipeline.find("src");
  gst_util_set_object_arg(G_OBJECT(source.get()), "loras",
                          "<\"lora,path=\\\"/tmp/a\\ b.safetensors\\\",strength=(double)0.5\">");
  GValue value = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(source.get()), "loras", &value);
  ASSERT_EQ(gst_value_array_get_size(&value), 1u);
  const GstStructure *lora = gst_value_get_structure(gst_value_array_get_value(&value, 0));
  EXPECT_STREQ(gst_structure_get_string(lora, "path"), "/tmp/a b.safetensors");
  double strength = 0;
  EXPECT_TRUE(gst_structure_get_double(lora, "strength", &strength));
  EXPECT_EQ(strength, 0.5);
  g_value_unset(&value);
}

void expect_refusal(const std::string &loras, GstResourceError code, const std::string &names) {
  const Error error = error_of(launch(loras));
  EXPECT_EQ(error.domain, "gst-resource-error-quark") << error.message;
  EXPECT_EQ(error.code, code) << error.message;
  EXPECT_NE(error.message.find(names), std::string::npos) << names << " is not in: " << error.message;
}

TEST(Loras, Refused) {
  const LoraFile lora;
  expect_refusal(structure("/nowhere/lora.safetensors"), GST_RESOURCE_ERROR_NOT_FOUND,
                 "/nowhere/lora.safetensors");
  for (const char *wrong : {"<\"lora,strength=1.0\">", "<\"lora,path=a,strength=much\">",
                            "<\"lora,path=a,weight=1.0\">", "<\"lora,path=(int)3\">"})
    expect_refusal(wrong, GST_RESOURCE_ERROR_SETTINGS, "this one cannot be read: lora,");
  std::ofstream(lora.path()) << "neither";
  expect_refusal(structure(lora.path()), GST_RESOURCE_ERROR_SETTINGS, lora.path());
}

TEST(Loras, OfAUri) {
  GError *error = nullptr;
  GstElement *made =
      gst_element_make_from_uri(GST_URI_SRC, "wan://a?loras=<\"lora,path=x.safetensors\">", nullptr, &error);
  ASSERT_NE(made, nullptr) << error->message;
  const Ptr<GstElement> source(GST_ELEMENT(gst_object_ref_sink(made)));
  GValue value = G_VALUE_INIT;
  g_object_get_property(G_OBJECT(source.get()), "loras", &value);
  EXPECT_EQ(gst_value_array_get_size(&value), 1u);
  g_value_unset(&value);
}

}  // namespace
}  // namespace wan::test
