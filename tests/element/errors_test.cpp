// Bad input: each ends with one clear error of the right kind, and a pipeline that is back in NULL.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gmodule.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "support.h"

namespace wan::test {
namespace {

namespace fs = std::filesystem;

void expect_resource_error(const Error &error, GstResourceError code, const std::string &names) {
  EXPECT_EQ(error.domain, "gst-resource-error-quark") << error.message;
  EXPECT_EQ(error.code, code) << error.message;
  EXPECT_NE(error.message.find(names), std::string::npos)
      << "\"" << names << "\" is not in: " << error.message;
  EXPECT_TRUE(g_utf8_validate(error.message.c_str(), -1, nullptr));
}

void replace_in(const fs::path &file, const std::string &old, const std::string &fresh) {
  std::ifstream in(file, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(in), {});
  const size_t at = text.find(old);
  ASSERT_NE(at, std::string::npos) << file << " lacks " << old;
  text.replace(at, old.size(), fresh);
  std::ofstream(file, std::ios::binary) << text;
}

TEST(BadModel, MissingDirectory) {
  expect_resource_error(error_of("wansrc model=/nowhere/wan" + kSink), GST_RESOURCE_ERROR_NOT_FOUND,
                        "/nowhere/wan");
}

TEST(BadModel, DirectoryWithoutACheckpoint) {
  ModelCopy model;
  fs::remove(model / "model_index.json");
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_NOT_FOUND, "model_index.json");
}

TEST(BadModel, AnotherPipelineClass) {
  ModelCopy model;
  replace_in(model / "model_index.json", "\"WanPipeline\"", "\"StableDiffusionPipeline\"");
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_SETTINGS,
                        "StableDiffusionPipeline");
}

TEST(BadModel, BrokenJson) {
  ModelCopy model;
  std::ofstream(model / "model_index.json") << "{\"_class_name\": ";
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_SETTINGS, "model_index.json");
}

TEST(BadModel, MissingWeights) {
  ModelCopy model;
  fs::remove(model / "vae/diffusion_pytorch_model.safetensors");
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_NOT_FOUND, "vae");
}

TEST(BadModel, MissingTokenizer) {
  ModelCopy model;
  fs::remove_all(model / "tokenizer");
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_NOT_FOUND, "tokenizer");
}

TEST(BadModel, TruncatedWeights) {
  ModelCopy model;
  const fs::path file = model / "transformer/diffusion_pytorch_model.safetensors";
  fs::resize_file(file, fs::file_size(file) / 2);
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_SETTINGS,
                        "diffusion_pytorch_model.safetensors");
}

TEST(BadModel, EmptyWeights) {
  ModelCopy model;
  fs::resize_file(model / "text_encoder/model.safetensors", 0);
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_SETTINGS, "model.safetensors");
}

TEST(BadModel, MissingTensor) {
  ModelCopy model;
  replace_in(model / "transformer/diffusion_pytorch_model.safetensors", "\"proj_out.weight\"",
             "\"prox_out.weight\"");
  expect_resource_error(error_of(model.source() + kSink), GST_RESOURCE_ERROR_SETTINGS, "proj_out.weight");
}

TEST(BadModel, LoadingEndsWithAProgressError) {
  ModelCopy model;
  fs::resize_file(model / "vae/diffusion_pytorch_model.safetensors", 100);
  Pipeline pipeline(model.source() + kSink);
  pipeline.run();
  const auto progress = pipeline.messages(GST_MESSAGE_PROGRESS);
  ASSERT_FALSE(progress.empty());
  GstProgressType type;
  gst_message_parse_progress(const_cast<GstMessage *>(progress.back()), &type, nullptr, nullptr);
  EXPECT_EQ(type, GST_PROGRESS_TYPE_ERROR);
}

TEST(BadValue, PromptThatIsNotUtf8) {
  Pipeline pipeline(kSmallSource + kSmallCaps + kSink);
  g_object_set(pipeline.find("src").get(), "prompt", "a \xff\xfe cat", nullptr);
  pipeline.run();
  const auto error = first_error(pipeline);
  ASSERT_TRUE(error);
  expect_resource_error(*error, GST_RESOURCE_ERROR_SETTINGS, "UTF-8");
}

TEST(BadValue, SigmasThatDoNotFall) {
  expect_resource_error(error_of(kSmallSource + "sigmas=<1,0.5,0.75>" + kSmallCaps + kSink),
                        GST_RESOURCE_ERROR_SETTINGS, "sigmas must fall from step to step, and 0.75");
}

// Before any weights are read, and not silently taken for the default.
TEST(BadValue, NumbersInHolesOfTheirRange) {
  for (const char *value : {"guidance-scale=-0.5", "guidance-scale-2=-0.1", "flow-shift=0", "flow-shift=-0.5",
                            "sigmas=<1,1>", "sigmas=<0>"}) {
    const std::string name(value, std::strchr(value, '='));
    expect_resource_error(error_of("wansrc device=cpu model=" + std::string(std::getenv("GST_WAN_MODEL")) +
                                   " " + value + kSmallCaps + kSink),
                          GST_RESOURCE_ERROR_SETTINGS, name + " must");
  }
  const Error error = error_of(stub_source("refused") + kSink);
  expect_resource_error(error, GST_RESOURCE_ERROR_SETTINGS, "The stub cannot make this.");
}

Error error_with(const char *property, const char *value) {
  Pipeline pipeline("wansrc name=src device=cpu" + kSink);
  g_object_set(pipeline.find("src").get(), property, value, nullptr);
  pipeline.run();
  return first_error(pipeline).value_or(Error{});
}

TEST(BadValue, BytesThatAreNoText) {
  const Error error = error_with("model", "/nowhere/caf\xe9");
  expect_resource_error(error, GST_RESOURCE_ERROR_NOT_FOUND, "/nowhere/caf");
  EXPECT_TRUE(g_utf8_validate(error.debug.c_str(), -1, nullptr));
  expect_resource_error(error_with("prompt", "\xff"), GST_RESOURCE_ERROR_SETTINGS, "prompt is not UTF-8");
}

TEST(BadValue, Device) {
  expect_resource_error(error_of("wansrc device=toaster" + kSmallCaps + kSink), GST_RESOURCE_ERROR_SETTINGS,
                        "toaster");
}

TEST(BadValue, DeviceThatIsAbsent) {
  expect_resource_error(error_of("wansrc device=cuda:63" + kSmallCaps + kSink),
                        GST_RESOURCE_ERROR_OPEN_READ_WRITE, "cuda");
}

TEST(BadValue, SizeTooBigForMemory) {
  const Error error =
      error_of("wansrc device=cpu steps=1 ! video/x-raw,format=NV12,width=16384,height=16384" + kSink);
  expect_resource_error(error, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "16384x16384");
}

TEST(BadValue, FrameCountTooBigForMemory) {
  const Error error = error_of(
      "wansrc device=cpu steps=1 num-frames=4093 ! video/x-raw,format=NV12,width=4096,height=4096" + kSink);
  expect_resource_error(error, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "4093 frames");
}

// The model has positions for 1024 latent frames and for 1024 rows and columns of patches.
TEST(BadValue, SizesBeyondTheModel) {
  const Error long_clip = error_of("wansrc device=cpu steps=1 num-frames=400000001" + kSmallCaps + kSink);
  expect_resource_error(long_clip, GST_RESOURCE_ERROR_SETTINGS, "400000001, is too large");
  const Error wide_clip =
      error_of("wansrc device=cpu steps=1 ! video/x-raw,format=NV12,width=32768,height=16" + kSink);
  expect_resource_error(wide_clip, GST_RESOURCE_ERROR_SETTINGS, "width 32768 is too large");
}

TEST(BadValue, FrameCountIsRoundedWithAWarning) {
  Pipeline pipeline("wansrc device=cpu steps=1 num-frames=6" + kSmallCaps + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 5u);
  const auto warnings = pipeline.messages(GST_MESSAGE_WARNING);
  ASSERT_EQ(warnings.size(), 1u);
  GError *warning = nullptr;
  gst_message_parse_warning(const_cast<GstMessage *>(warnings.front()), &warning, nullptr);
  EXPECT_NE(std::string(warning->message).find("num-frames=6 becomes 5"), std::string::npos)
      << warning->message;
  g_error_free(warning);
}

void expect_engine_error(const std::string &file, const std::string &says) {
  const Error error = error_of("wansrc engine=" + file + kSink);
  EXPECT_EQ(error.domain, "gst-library-error-quark");
  EXPECT_EQ(error.code, GST_LIBRARY_ERROR_INIT);
  EXPECT_NE(error.message.find(file), std::string::npos) << error.message;
  EXPECT_NE(error.message.find(says), std::string::npos) << error.message;
}

// Other threads may be reading the environment, and children would inherit what is set there. Yet OpenMP,
// which reads it when the engine is opened, is told to wait patiently.
TEST(Engine, LeavesTheEnvironmentAsItIs) {
  const std::string policy = std::getenv("OMP_WAIT_POLICY") ? std::getenv("OMP_WAIT_POLICY") : "";
  const fs::path file = fs::temp_directory_path() / ("wan-stub-" + std::to_string(getpid()) + ".so");
  fs::copy_file(test_library("WAN_TEST_STUB_ENGINE"), file, fs::copy_options::overwrite_existing);
  g_unsetenv("OMP_WAIT_POLICY");
  Pipeline pipeline("wansrc engine=" + file.string() + " ! fakesink");
  EXPECT_EQ(pipeline.reach(GST_STATE_READY), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(std::getenv("OMP_WAIT_POLICY"), nullptr);
  GModule *module = g_module_open(file.c_str(), G_MODULE_BIND_LOCAL);
  gpointer symbol = nullptr;
  ASSERT_TRUE(module && g_module_symbol(module, "stub_wait_policy", &symbol));
  EXPECT_STREQ(reinterpret_cast<const char *(*)()>(symbol)(), "passive");
  g_module_close(module);
  fs::remove(file);
  if (!policy.empty()) g_setenv("OMP_WAIT_POLICY", policy.c_str(), TRUE);
}

TEST(BadEngine, Missing) {
  expect_engine_error("/nowhere/libwan-engine.so", "cannot be opened");
}

TEST(BadEngine, OfAnyBytesIsNamedInUtf8) {
  Pipeline pipeline("wansrc name=src" + kSink);
  g_object_set(pipeline.find("src").get(), "engine", "/nowhere/caf\xe9", nullptr);
  pipeline.run();
  EXPECT_TRUE(g_utf8_validate(first_error(pipeline).value_or(Error{}).message.c_str(), -1, nullptr));
}

TEST(BadEngine, AnotherLibrary) {
  expect_engine_error(test_library("WAN_TEST_PLUGIN"), "not an engine");
}

TEST(BadEngine, AnotherVersion) {
  expect_engine_error(test_library("WAN_TEST_OTHER_ABI_ENGINE"), "another version");
}

struct Failure {
  const char *prompt;
  const char *domain;
  int code;
};

class EngineFailure : public testing::TestWithParam<Failure> {};

TEST_P(EngineFailure, HasItsKind) {
  const Error error = error_of(stub_source(GetParam().prompt) + kSink);
  EXPECT_EQ(error.domain, GetParam().domain);
  EXPECT_EQ(error.code, GetParam().code);
  EXPECT_EQ(error.message, "The stub failed.");
  EXPECT_NE(error.debug.find("engine stub"), std::string::npos) << error.debug;
  EXPECT_NE(error.debug.find("stub_engine.cpp(7): "), std::string::npos) << "where it arose: " << error.debug;
}

INSTANTIATE_TEST_SUITE_P(
    BadEngine, EngineFailure,
    testing::Values(Failure{"not-found", "gst-resource-error-quark", GST_RESOURCE_ERROR_NOT_FOUND},
                    Failure{"invalid", "gst-resource-error-quark", GST_RESOURCE_ERROR_SETTINGS},
                    Failure{"out-of-memory", "gst-resource-error-quark", GST_RESOURCE_ERROR_NO_SPACE_LEFT},
                    Failure{"device", "gst-resource-error-quark", GST_RESOURCE_ERROR_OPEN_READ_WRITE},
                    Failure{"internal", "gst-stream-error-quark", GST_STREAM_ERROR_FAILED}));

TEST(BadEngine, FramesMadeBeforeAFailureArePushed) {
  Pipeline pipeline(stub_source("fails-at-the-end") + kSink);
  pipeline.run();
  EXPECT_TRUE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 9u);
}

TEST(BadEngine, AnElementRecoversFromAnError) {
  Pipeline pipeline("wansrc name=src device=cpu model=/nowhere num-frames=5 steps=1" + kSmallCaps + kSink);
  pipeline.run();
  ASSERT_TRUE(first_error(pipeline));
  g_object_set(pipeline.find("src").get(), "model", "", nullptr);
  pipeline.run();
  EXPECT_EQ(pipeline.samples().size(), 5u);
}

}  // namespace
}  // namespace wan::test
