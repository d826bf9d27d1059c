// A live stream for a time, whose prompt changes, into a pipeline that an application would have: underruns,
// and how long a new prompt takes to the screen.
//
//     live-bench LINE [--seconds=600] [--prompt-every=15]
//
// LINE is as gst-launch-1.0 takes it, with a wansrc that is named `src`, is live and makes an endless video.
// GStreamer must find wansrc (meson devenv -C build, or GST_PLUGIN_PATH and GST_WAN_ENGINE). Prints JSON.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <gst/gst.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace {

struct Run {
  GMainLoop *loop = g_main_loop_new(nullptr, FALSE);
  GstElement *pipeline = nullptr, *source = nullptr;
  int seconds = 600, prompt_every = 15, prompts = 0, status = 0;
  bool counts = false;  // from the first frame on
  std::vector<double> prompt_to_screen;
};

GstStructure *stats_of(GstElement *source) {
  GstStructure *stats = nullptr;
  g_object_get(source, "stats", &stats, nullptr);
  return stats;
}

double number(const GstStructure *stats, const char *field) {
  GValue value = G_VALUE_INIT;
  g_value_init(&value, G_TYPE_DOUBLE);
  const GValue *found = gst_structure_get_value(stats, field);
  if (found) g_value_transform(found, &value);
  return g_value_get_double(&value);
}

/// The newest prompt should have been on the screen for long when the next one is set.
void take_prompt_to_screen(Run &run) {
  GstStructure *stats = stats_of(run.source);
  if (const double seconds = number(stats, "prompt-to-screen"); seconds > 0)
    run.prompt_to_screen.push_back(seconds);
  gst_structure_free(stats);
}

gboolean change_prompt(gpointer data) {
  Run &run = *static_cast<Run *>(data);
  take_prompt_to_screen(run);
  const std::string prompt = "scene " + std::to_string(++run.prompts) + ", a ball that rolls";
  g_object_set(run.source, "prompt", prompt.c_str(), nullptr);
  return G_SOURCE_CONTINUE;
}

gboolean end(gpointer data) {
  gst_element_send_event(static_cast<Run *>(data)->pipeline, gst_event_new_eos());
  return G_SOURCE_REMOVE;
}

/// Loading does not count.
void start_to_count(Run &run) {
  run.counts = true;
  g_timeout_add_seconds(static_cast<guint>(run.prompt_every), change_prompt, &run);
  g_timeout_add_seconds(static_cast<guint>(run.seconds), end, &run);
}

gboolean on_message(GstBus *, GstMessage *message, gpointer data) {
  Run &run = *static_cast<Run *>(data);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    GError *error = nullptr;
    gst_message_parse_error(message, &error, nullptr);
    std::fprintf(stderr, "live-bench: %s\n", error->message);
    g_error_free(error);
    run.status = 1;
  }
  if (!run.counts && gst_message_has_name(message, "wan-clip")) start_to_count(run);
  if (gst_message_has_name(message, "wan-underrun")) {
    gchar *text = gst_structure_to_string(gst_message_get_structure(message));
    std::fprintf(stderr, "%s\n", text);
    g_free(text);
  }
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS || run.status) g_main_loop_quit(run.loop);
  return G_SOURCE_CONTINUE;
}

void print(Run &run) {
  GstStructure *stats = stats_of(run.source);
  std::sort(run.prompt_to_screen.begin(), run.prompt_to_screen.end());
  const size_t count = run.prompt_to_screen.size();
  std::printf("{\"seconds\": %d", run.seconds);
  for (const char *field : {"frames-pushed", "underruns", "repeated", "dropped", "fps", "gpu-peak-bytes"})
    std::printf(", \"%s\": %.10g", field, number(stats, field));
  std::printf(", \"prompts\": %zu", count);
  if (count)
    std::printf(", \"prompt-to-screen\": {\"median\": %.3f, \"greatest\": %.3f}",
                run.prompt_to_screen[count / 2], run.prompt_to_screen.back());
  std::printf("}\n");
  gst_structure_free(stats);
}

bool start(Run &run, const std::string &line) {
  GError *error = nullptr;
  run.pipeline = gst_parse_launch(line.c_str(), &error);
  if (error) {
    std::fprintf(stderr, "live-bench: %s\n", error->message);
    g_error_free(error);
    return false;
  }
  run.source = gst_bin_get_by_name(GST_BIN(run.pipeline), "src");
  if (!run.source) {
    std::fprintf(stderr, "live-bench: the line has no element that is named src\n");
    return false;
  }
  GstBus *bus = gst_element_get_bus(run.pipeline);
  gst_bus_add_watch(bus, on_message, &run);
  gst_object_unref(bus);
  gst_element_set_state(run.pipeline, GST_STATE_PLAYING);
  return true;
}

std::string parse(Run &run, int argc, char **argv) {
  gchar **words = nullptr;
  const GOptionEntry entries[] = {
      {"seconds", 0, 0, G_OPTION_ARG_INT, &run.seconds, "how long it plays (600)", "N"},
      {"prompt-every", 0, 0, G_OPTION_ARG_INT, &run.prompt_every, "seconds between prompts (15)", "N"},
      {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &words, nullptr, "LINE"},
      {}};
  GOptionContext *context = g_option_context_new(nullptr);
  g_option_context_add_main_entries(context, entries, nullptr);
  g_option_context_add_group(context, gst_init_get_option_group());
  GError *error = nullptr;
  if (!g_option_context_parse(context, &argc, &argv, &error) || !words) {
    std::fprintf(stderr, "live-bench: %s\n", error ? error->message : "no pipeline is given");
    std::exit(2);
  }
  g_option_context_free(context);
  gchar *line = g_strjoinv(" ", words);
  const std::string result = line;
  g_free(line);
  g_strfreev(words);
  return result;
}

}  // namespace

int main(int argc, char **argv) {
  Run run;
  if (!start(run, parse(run, argc, argv))) return 1;
  g_main_loop_run(run.loop);
  print(run);
  gst_element_set_state(run.pipeline, GST_STATE_NULL);
  gst_object_unref(run.source);
  gst_object_unref(run.pipeline);
  g_main_loop_unref(run.loop);
  return run.status;
}
