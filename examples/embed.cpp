// Videos in a C++ program: takes the frames from an appsink, shows how far the work is, changes the prompt
// while it runs, and tells what went wrong. Prints a line for each frame, with the mean colour of its pixels.
//
//     embed "a red circle bouncing on a blue background" "a green star rising on a white background"
//     embed --model Wan2.2-TI2V-5B-Diffusers --image cat.jpg "the cat turns its head" "it jumps"
//
// With a model that takes pictures, clips begin with that of --image, a path or URI, or with one that is
// painted here: --colour 3060c0.
//
// embed.py does the same in Python.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <glib-unix.h>
#include <gst/app/gstappsink.h>
#include <gst/gst.h>
#include <gst/video/video.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>

namespace {

// appsink takes RGB, and the engine makes it: no converter is needed. max-buffers holds the source back when
// frames are taken slower than they are made. sync=false: as fast as they come, not at their times.
constexpr const char *kLaunch =
    "wansrc name=wan ! video/x-raw,format=RGB ! appsink name=sink max-buffers=4 sync=false";

struct Embed {
  GMainLoop *loop = g_main_loop_new(nullptr, FALSE);
  GstElement *pipeline = nullptr, *wan = nullptr;
  GstSample *picture = nullptr;
  std::deque<std::string> prompts;  // still to be enqueued
  int enqueued_clips = 0, newest_clip = -1;
  bool failed = false;

  ~Embed() {
    if (pipeline) gst_element_set_state(pipeline, GST_STATE_NULL);
    if (picture) gst_sample_unref(picture);
    gst_clear_object(&wan);
    gst_clear_object(&pipeline);
    g_main_loop_unref(loop);
  }
};

guint mean_colour(const GstVideoFrame &frame) {
  const int width = GST_VIDEO_FRAME_WIDTH(&frame), height = GST_VIDEO_FRAME_HEIGHT(&frame);
  guint64 sum[3] = {};
  for (int y = 0; y < height; ++y) {
    // Rows may be padded, so their distance is the frame's to say.
    const auto *row = static_cast<const guint8 *>(GST_VIDEO_FRAME_PLANE_DATA(&frame, 0)) +
                      y * GST_VIDEO_FRAME_PLANE_STRIDE(&frame, 0);
    for (int x = 0; x < width * 3; ++x) sum[x % 3] += row[x];
  }
  const guint64 pixels = guint64(width) * height;
  return guint(sum[0] / pixels << 16 | sum[1] / pixels << 8 | sum[2] / pixels);
}

// Where a frame comes from travels with it.
void print_frame(GstBuffer *buffer, guint colour) {
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "GstWanMeta");
  int clip = 0, number = 0;
  gst_structure_get(gst_custom_meta_get_structure(meta), "clip", G_TYPE_INT, &clip, "frame", G_TYPE_INT,
                    &number, nullptr);
  std::printf("clip %d, frame %d, %.3f s: #%06x\n", clip, number, double(GST_BUFFER_PTS(buffer)) / GST_SECOND,
              colour);
}

// Runs in the streaming thread; the next frame waits until it returns.
GstFlowReturn take_sample(GstAppSink *sink, gpointer) {
  GstSample *sample = gst_app_sink_pull_sample(sink);
  if (!sample) return GST_FLOW_EOS;
  GstVideoInfo info;
  GstVideoFrame frame;
  const bool mapped = gst_video_info_from_caps(&info, gst_sample_get_caps(sample)) &&
                      gst_video_frame_map(&frame, &info, gst_sample_get_buffer(sample), GST_MAP_READ);
  if (mapped) {
    print_frame(frame.buffer, mean_colour(frame));
    gst_video_frame_unmap(&frame);
  }
  gst_sample_unref(sample);
  return mapped ? GST_FLOW_OK : GST_FLOW_ERROR;
}

// A picture may be pixels that the program has, in any format of raw video: the caps say what they are.
GstSample *paint(guint colour) {
  GstVideoInfo info;
  gst_video_info_set_format(&info, GST_VIDEO_FORMAT_RGB, 64, 48);
  GstBuffer *buffer = gst_buffer_new_allocate(nullptr, GST_VIDEO_INFO_SIZE(&info), nullptr);
  const guint8 pixel[3] = {guint8(colour >> 16), guint8(colour >> 8), guint8(colour)};
  for (gsize at = 0; at < GST_VIDEO_INFO_SIZE(&info); at += 3) gst_buffer_fill(buffer, at, pixel, 3);
  GstCaps *caps = gst_video_info_to_caps(&info);
  GstSample *sample = gst_sample_new(buffer, caps, nullptr, nullptr);
  gst_caps_unref(caps);
  gst_buffer_unref(buffer);
  return sample;
}

// A queued clip comes before any other, and the stream does not end before the queue is empty. The second
// argument of "enqueue" may hold settings of that clip alone; setting the property "prompt" would change all
// clips from the next on.
void enqueue_next(Embed &embed) {
  if (embed.prompts.empty()) return;
  GstStructure *settings =
      gst_structure_new("settings", "seed", G_TYPE_INT64, gint64(++embed.enqueued_clips), nullptr);
  if (embed.picture) gst_structure_set(settings, "image", GST_TYPE_SAMPLE, embed.picture, nullptr);
  guint accepted = 0;
  g_signal_emit_by_name(embed.wan, "enqueue", embed.prompts.front().c_str(), settings, &accepted);
  gst_structure_free(settings);
  embed.prompts.pop_front();
}

void show_progress(Embed &embed, const GstStructure *progress) {
  int clip = 0, step = 0, steps = 0;
  gst_structure_get(progress, "clip", G_TYPE_INT, &clip, "step", G_TYPE_INT, &step, "steps", G_TYPE_INT,
                    &steps, nullptr);
  g_printerr("clip %d: %s %d/%d\n", clip, gst_structure_get_string(progress, "stage"), step, steps);
  if (clip <= embed.newest_clip) return;
  embed.newest_clip = clip;
  enqueue_next(embed);
}

void show_error(Embed &embed, GstMessage *message) {
  GError *error = nullptr;
  gchar *debug = nullptr;
  gst_message_parse_error(message, &error, &debug);  // debug says more, for developers
  g_printerr("%s\n", error->message);
  g_clear_error(&error);
  g_free(debug);
  embed.failed = true;
}

// Messages of the pipeline, in the main loop's thread.
gboolean take_message(GstBus *, GstMessage *message, gpointer data) {
  auto &embed = *static_cast<Embed *>(data);
  switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_ELEMENT:
      if (gst_message_has_name(message, "wan-progress"))
        show_progress(embed, gst_message_get_structure(message));
      break;
    case GST_MESSAGE_ERROR:
      show_error(embed, message);
      g_main_loop_quit(embed.loop);
      break;
    case GST_MESSAGE_EOS:
      g_main_loop_quit(embed.loop);
      break;
    default:
      break;
  }
  return G_SOURCE_CONTINUE;
}

// Ctrl-C: what is made already still comes out, then EOS.
gboolean end(gpointer embed) {
  gst_element_send_event(static_cast<Embed *>(embed)->pipeline, gst_event_new_eos());
  return G_SOURCE_CONTINUE;
}

bool build(Embed &embed, const char *model, const char *image) {
  GError *error = nullptr;
  embed.pipeline = gst_parse_launch_full(kLaunch, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!embed.pipeline) {
    g_printerr("%s. Is GST_PLUGIN_PATH set?\n", error->message);
    g_clear_error(&error);
    return false;
  }
  embed.wan = gst_bin_get_by_name(GST_BIN(embed.pipeline), "wan");
  if (model) g_object_set(embed.wan, "model", model, nullptr);
  if (image) g_object_set(embed.wan, "image", image, nullptr);
  // While one clip is made another waits. A clip may take less time than it takes to enqueue the next one, and
  // with an empty queue the stream would end.
  enqueue_next(embed);
  enqueue_next(embed);

  GstElement *sink = gst_bin_get_by_name(GST_BIN(embed.pipeline), "sink");
  GstAppSinkCallbacks callbacks = {};
  callbacks.new_sample = take_sample;
  gst_app_sink_set_callbacks(GST_APP_SINK(sink), &callbacks, nullptr, nullptr);
  gst_object_unref(sink);
  return true;
}

int run(Embed &embed) {
  GstBus *bus = gst_element_get_bus(embed.pipeline);
  const guint watch = gst_bus_add_watch(bus, take_message, &embed);
  const guint interrupt = g_unix_signal_add(SIGINT, end, &embed);
  // A failure here is on the bus as well, with the reason.
  gst_element_set_state(embed.pipeline, GST_STATE_PLAYING);
  g_main_loop_run(embed.loop);
  g_source_remove(interrupt);
  g_source_remove(watch);
  gst_object_unref(bus);
  return embed.failed ? 1 : 0;
}

}  // namespace

int main(int argc, char **argv) {
  gst_init(&argc, &argv);
  Embed embed;
  const char *model = nullptr, *image = nullptr;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--model" && i + 1 < argc)
      model = argv[++i];
    else if (argument == "--image" && i + 1 < argc)
      image = argv[++i];
    else if (argument == "--colour" && i + 1 < argc && !embed.picture)
      embed.picture = paint(guint(std::strtoul(argv[++i], nullptr, 16)));
    else
      embed.prompts.push_back(argument);
  }
  if (embed.prompts.empty()) {
    g_printerr("Usage: embed [--model DIRECTORY] [--image FILE | --colour RRGGBB] PROMPT...\n");
    return 2;
  }
  return build(embed, model, image) ? run(embed) : 1;
}
