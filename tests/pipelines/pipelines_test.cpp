// Whole pipelines as a user types them, run by gst-launch-1.0, their files looked at by ffprobe.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <sys/wait.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "support.h"

namespace wan::test {
namespace {

namespace fs = std::filesystem;

struct Output {
  int status;
  std::string out, err;
};

Output run_command(const std::string &command) {
  gchar *out = nullptr, *err = nullptr;
  gint status = -1;
  GError *error = nullptr;
  if (!g_spawn_command_line_sync(command.c_str(), &out, &err, &status, &error))
    throw std::runtime_error(error->message);
  Output output = {status, out, err};
  g_free(out);
  g_free(err);
  return output;
}

std::vector<std::string> lines(const std::string &text) {
  std::vector<std::string> result;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);)
    if (!line.empty()) result.push_back(line);
  return result;
}

class Launch : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = fs::temp_directory_path() / "wan-pipeline-XXXXXX";
    directory_ = g_mkdtemp(name.data());
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string path(const std::string &name) const { return directory_ / name; }

  void launch(const std::string &rest) {
    const Output output = run_command(
        "gst-launch-1.0 wansrc device=cpu num-frames=9 steps=1 seed=1 prompt=\"a red circle\" ! "
        "video/x-raw,width=64,height=48,framerate=16/1 " +
        rest);
    EXPECT_EQ(output.status, 0) << output.out << output.err;
    EXPECT_NE(output.out.find("Got EOS"), std::string::npos) << output.out;
  }

  std::string probe(const std::string &arguments) {
    const Output output = run_command("ffprobe -v error -of csv=p=0 " + arguments);
    EXPECT_EQ(output.status, 0) << output.err;
    EXPECT_EQ(output.err, "");
    return output.out;
  }

  void expect_video(const std::string &file, int frames, double tolerance) {
    const auto size =
        lines(probe("-count_frames -show_entries stream=width,height,nb_read_frames " + path(file)));
    ASSERT_EQ(size.size(), 1u);
    EXPECT_EQ(size[0], "64,48," + std::to_string(frames));
    const auto times = lines(probe("-show_entries frame=pts_time " + path(file)));
    ASSERT_EQ(times.size(), size_t(frames));
    const double first = std::stod(times[0]);
    for (int i = 0; i < frames; ++i)
      EXPECT_NEAR(std::stod(times[i]) - first, i / 16.0, tolerance) << "frame " << i;
  }

  fs::path directory_;
};

TEST_F(Launch, Mp4) {
  launch("! x264enc ! mp4mux ! filesink location=" + path("wan.mp4"));
  expect_video("wan.mp4", 9, 1e-6);
  EXPECT_NE(probe("-show_entries format_tags=title " + path("wan.mp4")).find("a red circle"),
            std::string::npos);
}

TEST_F(Launch, Matroska) {
  launch("! x264enc ! matroskamux ! filesink location=" + path("wan.mkv"));
  expect_video("wan.mkv", 9, 1e-3);  // Matroska counts milliseconds
}

TEST_F(Launch, PngSequence) {
  launch("! pngenc ! multifilesink location=" + path("%03d.png"));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 9);
  const auto sizes =
      lines(probe("-count_frames -show_entries stream=width,height,nb_read_frames " + path("%03d.png")));
  ASSERT_EQ(sizes.size(), 1u);
  EXPECT_EQ(sizes[0], "64,48,9");
}

TEST_F(Launch, WebP) {
  launch("! webpenc ! multifilesink location=" + path("%03d.webp"));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), {}), 9);
  EXPECT_EQ(lines(probe("-show_entries stream=width,height " + path("008.webp"))).at(0), "64,48");
}

TEST_F(Launch, PausedUntilLoaded) {
  const Output output = run_command(
      "gst-launch-1.0 wansrc device=cpu num-frames=5 steps=1 ! "
      "video/x-raw,width=32,height=32 ! fakesink");
  const size_t loaded = output.out.find("The model is loaded"),
               playing = output.out.find("Setting pipeline to PLAYING");
  EXPECT_NE(loaded, std::string::npos) << output.out;
  EXPECT_NE(playing, std::string::npos) << output.out;
  EXPECT_LT(loaded, playing);
}

TEST_F(Launch, InterruptLeavesAWholeFile) {
  const std::string file = path("wan.mp4");
  const std::string command =
      "gst-launch-1.0 -e wansrc num-clips=-1 num-frames=9 engine=" + test_library("WAN_TEST_STUB_ENGINE") +
      " ! video/x-raw,width=64,height=48 ! identity sync=true ! x264enc tune=zerolatency ! "
      "mp4mux ! filesink buffer-mode=unbuffered location=" +
      file;
  gint argc = 0;
  gchar **argv = nullptr;
  ASSERT_TRUE(g_shell_parse_argv(command.c_str(), &argc, &argv, nullptr));
  GPid pid = 0;
  const auto flags =
      GSpawnFlags(G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL);
  ASSERT_TRUE(g_spawn_async(nullptr, argv, nullptr, flags, nullptr, nullptr, &pid, nullptr));
  g_strfreev(argv);
  // The muxer writes its header with the first frame.
  while (!fs::exists(file) || fs::file_size(file) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  kill(pid, SIGINT);
  int status = -1;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_GT(std::stoi(probe("-count_frames -show_entries stream=nb_read_frames " + file)), 0);
}

TEST_F(Launch, InspectReadsLikeAManualPage) {
  const Output output = run_command("gst-inspect-1.0 wansrc");
  EXPECT_EQ(output.status, 0);
  EXPECT_EQ(output.err, "");
  for (const char *text :
       {"Wan video source", "Source/Video", "LGPL", "guidance-scale-2", "SRC template: 'src'"})
    EXPECT_NE(output.out.find(text), std::string::npos) << text;
}

TEST_F(Launch, PluginLinksNoEngine) {
  const Output output = run_command("ldd " + test_library("WAN_TEST_PLUGIN"));
  EXPECT_EQ(output.out.find("torch"), std::string::npos) << output.out;
}

// The engine decodes a section while it asks for the next one, and nothing is left of the last one's last
// chunks.
TEST(EndlessVideo, EndsWhereThePrebufferIsLonger) {
  const std::string model = fs::path(g_getenv("GST_WAN_MODEL")).parent_path() / "wan-tiny-causal";
  for (const char *prebuffer : {"1687500000", "1812500000"}) {
    const Output output = run_command("timeout 60 gst-launch-1.0 wansrc device=cpu model=" + model +
                                      " is-live=true num-frames=25 num-clips=1 prebuffer=" + prebuffer +
                                      " ! video/x-raw,width=64,height=64 ! fakesink");
    EXPECT_EQ(output.status, 0) << prebuffer << output.out << output.err;
  }
}

// As fast as it could be made, not as it is taken: frames wait for room on another thread.
TEST(EndlessVideo, IsNoFasterWhereItIsTakenSlowly) {
  const std::string model = fs::path(g_getenv("GST_WAN_MODEL")).parent_path() / "wan-tiny-causal";
  const auto fps = [&](const std::string &sync) {
    Pipeline pipeline("wansrc name=src device=cpu model=" + model +
                      " num-frames=57 queue-size=1 ! video/x-raw,width=64,height=64 ! fakesink sync=" + sync);
    pipeline.run();
    EXPECT_FALSE(first_error(pipeline));
    gdouble value = 0;
    EXPECT_TRUE(gst_structure_get_double(pipeline.stats().get(), "fps", &value));
    return value;
  };
  EXPECT_LT(fps("true"), 10 * fps("false"));
}

TEST(Appsink, TakesFramesAsTheyCome) {
  Pipeline pipeline(kSmallSource + "num-clips=2" + kSmallCaps + ",format=RGB" + kSink);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  EXPECT_EQ(pipeline.samples().size(), 10u);
}

}  // namespace
}  // namespace wan::test
