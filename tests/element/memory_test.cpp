// Whose memory the frames lie in, and that there is no more of it than the queue allows for. On the CPU, and
// on a GPU where WAN_TEST_DEVICE says so.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/video/video.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "support.h"

namespace wan::test {
namespace {

std::string source(const std::string &settings) {
  const char *device = std::getenv("WAN_TEST_DEVICE");
  return std::string("wansrc name=src steps=1 seed=1 device=") + (device ? device : "cpu") + " " + settings;
}

// What leaves wansrc: the pixels, without the rows' padding, and the memory's kind.
struct Seen {
  GstVideoInfo info;
  std::string video, pool_type, allocator_type;
  int first_stride = 0;
};

GstPadProbeReturn see(GstPad *pad, GstPadProbeInfo *probe, gpointer user) {
  auto &seen = *static_cast<Seen *>(user);
  GstBuffer *buffer = gst_pad_probe_info_get_buffer(probe);
  const Ptr<GstCaps> caps(gst_pad_get_current_caps(pad));
  gst_video_info_from_caps(&seen.info, caps.get());
  GstVideoFrame frame;
  if (!gst_video_frame_map(&frame, &seen.info, buffer, GST_MAP_READ)) return GST_PAD_PROBE_REMOVE;
  seen.first_stride = GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
  for (guint plane = 0; plane < GST_VIDEO_FRAME_N_PLANES(&frame); ++plane) {
    const int row = GST_VIDEO_FRAME_COMP_WIDTH(&frame, plane) * GST_VIDEO_FRAME_COMP_PSTRIDE(&frame, plane);
    for (int y = 0; y < GST_VIDEO_FRAME_COMP_HEIGHT(&frame, plane); ++y)
      seen.video.append(static_cast<char *>(GST_VIDEO_FRAME_PLANE_DATA(&frame, plane)) +
                            y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, plane),
                        row);
  }
  gst_video_frame_unmap(&frame);
  seen.pool_type = buffer->pool ? G_OBJECT_TYPE_NAME(buffer->pool) : "none";
  seen.allocator_type = G_OBJECT_TYPE_NAME(gst_buffer_peek_memory(buffer, 0)->allocator);
  return GST_PAD_PROBE_OK;
}

Ptr<GstPad> source_pad(const Pipeline &pipeline) {
  return Ptr<GstPad>(gst_element_get_static_pad(pipeline.find("src").get(), "src"));
}

Seen run_and_see(Pipeline &pipeline) {
  Seen seen;
  gst_pad_add_probe(source_pad(pipeline).get(), GST_PAD_PROBE_TYPE_BUFFER, see, &seen, nullptr);
  pipeline.run();
  EXPECT_FALSE(first_error(pipeline));
  return seen;
}

TEST(Pool, OrdinaryMemoryIsNotCopiedInto) {
  Pipeline pipeline(source("num-frames=5") + kSmallCaps +
                    ",format=NV12 ! videoconvert ! video/x-raw,format=RGB ! fakesink");
  EXPECT_EQ(run_and_see(pipeline).pool_type, "none");
}

TEST(Pool, OfASharedMemorySinkIsFilled) {
  const std::string launch = source("num-frames=9") + kSmallCaps + ",format=I420 ";
  const std::string directory = g_mkdtemp(std::string("/tmp/wan-shm-XXXXXX").data());
  Pipeline pipeline(launch + "! shmsink sync=false wait-for-connection=false socket-path=" + directory +
                    "/wan");
  const Seen seen = run_and_see(pipeline);
  EXPECT_EQ(seen.allocator_type, "GstShmSinkAllocator");
  EXPECT_EQ(seen.video, video_of(launch + kSink));
  std::filesystem::remove_all(directory);
}

// An X server without a screen.
class Xvfb {
 public:
  Xvfb() {
    int ends[2];
    if (pipe(ends) != 0) throw std::runtime_error("no pipe");
    const std::string command =
        "Xvfb -screen 0 640x480x24 -nolisten tcp -displayfd " + std::to_string(ends[1]);
    gint argc = 0;
    gchar **argv = nullptr;
    g_shell_parse_argv(command.c_str(), &argc, &argv, nullptr);
    const auto flags = GSpawnFlags(G_SPAWN_SEARCH_PATH | G_SPAWN_LEAVE_DESCRIPTORS_OPEN |
                                   G_SPAWN_STDERR_TO_DEV_NULL | G_SPAWN_DO_NOT_REAP_CHILD);
    const bool spawned = g_spawn_async(nullptr, argv, nullptr, flags, nullptr, nullptr, &pid_, nullptr);
    g_strfreev(argv);
    close(ends[1]);
    char number[16] = {};
    if (!spawned || read(ends[0], number, sizeof number - 1) <= 0) throw std::runtime_error("no Xvfb");
    close(ends[0]);
    display_ = ":" + std::string(g_strchomp(number));
  }
  ~Xvfb() {
    kill(pid_, SIGTERM);
    waitpid(pid_, nullptr, 0);
  }
  const std::string &display() const { return display_; }

 private:
  GPid pid_ = 0;
  std::string display_;
};

TEST(Pool, OfAnXSinkIsFilled) {
  const Xvfb server;
  const std::string launch = source("num-frames=9") + kSmallCaps + ",format=BGRx ";
  Pipeline pipeline(launch + "! ximagesink sync=false display=" + server.display());
  const Seen seen = run_and_see(pipeline);
  EXPECT_EQ(seen.pool_type, "GstXImageBufferPool");
  EXPECT_EQ(seen.video, video_of(launch + kSink));
}

// Answers the ALLOCATION query with a pool whose rows are padded to 64 bytes, of `max` buffers.
void offer_padded_pool(const Pipeline &pipeline, guint max) {
  const auto offer = [](GstPad *, GstPadProbeInfo *probe, gpointer max) {
    GstQuery *query = gst_pad_probe_info_get_query(probe);
    if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION) return GST_PAD_PROBE_OK;
    GstCaps *caps = nullptr;
    GstVideoInfo info;
    gst_query_parse_allocation(query, &caps, nullptr);
    gst_video_info_from_caps(&info, caps);
    GstVideoAlignment alignment;
    gst_video_alignment_reset(&alignment);
    alignment.padding_left = alignment.padding_bottom = 2;
    for (guint &align : alignment.stride_align) align = 63;
    GstBufferPool *pool = gst_video_buffer_pool_new();
    GstStructure *config = gst_buffer_pool_get_config(pool);
    gst_buffer_pool_config_set_params(config, caps, info.size, 0, GPOINTER_TO_UINT(max));
    gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
    gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_ALIGNMENT);
    gst_buffer_pool_config_set_video_alignment(config, &alignment);
    EXPECT_TRUE(gst_buffer_pool_set_config(pool, config));
    gst_query_add_allocation_pool(query, pool, info.size, 0, GPOINTER_TO_UINT(max));
    gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, nullptr);
    gst_object_unref(pool);
    return GST_PAD_PROBE_HANDLED;
  };
  gst_pad_add_probe(source_pad(pipeline).get(), GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, offer,
                    GUINT_TO_POINTER(max), nullptr);
}

TEST(Pool, WithOtherStridesIsFilledRowByRow) {
  for (const std::string format : {"NV12", "I420", "RGB", "BGRA"}) {
    const std::string launch = source("num-frames=5") + " ! video/x-raw,width=48,height=32,format=" + format;
    Pipeline pipeline(launch + " ! fakesink");
    offer_padded_pool(pipeline, 0);
    const Seen seen = run_and_see(pipeline);
    EXPECT_EQ(seen.pool_type, "GstVideoBufferPool");
    EXPECT_GT(seen.first_stride, GST_VIDEO_INFO_PLANE_STRIDE(&seen.info, 0));
    EXPECT_EQ(seen.video, video_of(launch + kSink)) << format;
  }
}

TEST(Pool, ThatIsEmptyDoesNotHoldUpAStop) {
  Pipeline pipeline(stub_source("") + "num-clips=-1 ! appsink name=sink sync=false");
  offer_padded_pool(pipeline, 2);
  ASSERT_EQ(pipeline.reach(GST_STATE_PLAYING), GST_STATE_CHANGE_SUCCESS);
  // The sink holds both of the pool's buffers, and the source waits for one.
  guint64 pushed = 0;
  while (pushed < 2) gst_structure_get_uint64(pipeline.stats().get(), "frames-pushed", &pushed);
  EXPECT_EQ(pipeline.reach(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  EXPECT_EQ(pushed, 2u);
}

// ---- a sink that sleeps for 50 ms in every frame

const std::string kSlowSink = " ! identity name=slow sleep-time=50000 ! fakesink name=sink";
constexpr guint kQueueSize = 2;

struct Watched {
  const Pipeline *pipeline;
  std::string video;
  guint highest_level = 0, frames = 0;
  guint64 most_bytes = 0, frame_bytes = 0;
};

void look(Watched &watched) {
  guint level = 0;
  guint64 pool = 0;
  const Ptr<GstStructure> stats = watched.pipeline->stats();
  gst_structure_get(stats.get(), "queue-level", G_TYPE_UINT, &level, "pool-bytes", G_TYPE_UINT64, &pool,
                    nullptr);
  watched.highest_level = std::max(watched.highest_level, level);
  watched.most_bytes = std::max(watched.most_bytes, pool);
}

void watch_sink(const Pipeline &pipeline, Watched &watched) {
  watched.pipeline = &pipeline;
  const Ptr<GstElement> sink = pipeline.find("sink");
  const Ptr<GstPad> pad(gst_element_get_static_pad(sink.get(), "sink"));
  const auto watch = [](GstPad *, GstPadProbeInfo *probe, gpointer user) {
    auto &watched = *static_cast<Watched *>(user);
    watched.video += bytes(gst_pad_probe_info_get_buffer(probe));
    look(watched);
    // On a busy machine the sink would else be faster than the decoder all the time.
    if (++watched.frames == 9)
      for (int waited = 0; waited < 60000 && watched.highest_level < kQueueSize; waited += 10) {
        g_usleep(10000);
        look(watched);
      }
    watched.frame_bytes = gst_buffer_get_size(gst_pad_probe_info_get_buffer(probe));
    return GST_PAD_PROBE_OK;
  };
  gst_pad_add_probe(pad.get(), GST_PAD_PROBE_TYPE_BUFFER, watch, &watched, nullptr);
}

const std::string kSlowSettings = "queue-size=" + std::to_string(kQueueSize) + " num-frames=33 ";

TEST(SlowSink, GetsTheSameFramesFromBoundedMemory) {
  const std::string launch = source(kSlowSettings + "num-clips=2") + kSmallCaps;
  Pipeline pipeline(launch + kSlowSink);
  Watched watched;
  watch_sink(pipeline, watched);
  pipeline.run();
  EXPECT_EQ(watched.video, video_of(launch + kSink));
  EXPECT_EQ(watched.highest_level, kQueueSize);
  // Under way in the engine, in the queue, being pushed, in the sink, and free at the start of a clip: of 18
  // chunks.
  constexpr guint64 kSlots = 2 + kQueueSize + 1 + 1 + 4;
  EXPECT_GT(watched.most_bytes, 0u);
  EXPECT_LE(watched.most_bytes, kSlots * 4 * watched.frame_bytes);
}

TEST(SlowSink, CanBeStoppedInTheMiddle) {
  const std::string launch = source(kSlowSettings) + kSmallCaps;
  const std::string whole = video_of(launch + kSink);
  Pipeline pipeline(launch + kSlowSink);
  Watched watched;
  watch_sink(pipeline, watched);
  pipeline.set_state(GST_STATE_PLAYING);
  ASSERT_NE(pipeline.wait_progress("decode"), nullptr);
  EXPECT_EQ(pipeline.reach(GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
  EXPECT_LT(watched.video.size(), whole.size());
  EXPECT_TRUE(whole.starts_with(watched.video));
  watched.video.clear();
  pipeline.run();
  EXPECT_EQ(watched.video, whole) << "it can be started again";
}

}  // namespace
}  // namespace wan::test
