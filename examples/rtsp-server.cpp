// An RTSP server that shows what wansrc makes of its prompts. One pipeline, which starts with the first
// viewer and ends with the last, serves them all.
//
//     rtsp-server --prompt "a red circle bouncing on a blue background"
//     ffplay rtsp://127.0.0.1:8554/wan
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <glib-unix.h>
#include <gst/rtsp-server/rtsp-server.h>

namespace {

constexpr const char *kPath = "/wan";

// pay0 is the name that gst-rtsp-server looks for. A viewer sees nothing before the next key frame, so there
// is one every two seconds, and config-interval=-1 sends the decoder's parameters along with it.
constexpr const char *kLaunch =
    "( wansrc name=wan is-live=true num-clips=-1 prompt=\"a red circle bouncing on a blue background\" ! "
    "videoconvert ! x264enc tune=zerolatency key-int-max=32 ! "
    "rtph264pay name=pay0 pt=96 config-interval=-1 )";

struct Options {
  gchar *address = g_strdup("127.0.0.1");
  gint port = 8554;
  gchar **prompts = nullptr;

  ~Options() {
    g_free(address);
    g_strfreev(prompts);
  }
};

bool parse(Options &options, int argc, char **argv) {
  const GOptionEntry entries[] = {
      {"address", 0, 0, G_OPTION_ARG_STRING, &options.address, "Address to listen at (127.0.0.1)", "ADDRESS"},
      {"port", 0, 0, G_OPTION_ARG_INT, &options.port, "Port to listen at (8554), 0 for any", "PORT"},
      {"prompt", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options.prompts,
       "What to show; of several, a clip of each, then the last for ever", "PROMPT"},
      {nullptr, 0, 0, G_OPTION_ARG_NONE, nullptr, nullptr, nullptr}};
  GOptionContext *context = g_option_context_new("- shows videos of wansrc over RTSP");
  g_option_context_add_main_entries(context, entries, nullptr);
  g_option_context_add_group(context, gst_init_get_option_group());
  GError *error = nullptr;
  const bool ok = g_option_context_parse(context, &argc, &argv, &error);
  if (!ok) g_printerr("%s\n", error->message);
  g_clear_error(&error);
  g_option_context_free(context);
  return ok;
}

// The pipeline of the first viewer was made, and has not started yet. Prompts are given to the element here
// and not in kLaunch, where quotes in them would need escaping.
void give_prompts(GstRTSPMediaFactory *, GstRTSPMedia *media, gchar **prompts) {
  GstElement *bin = gst_rtsp_media_get_element(media);
  GstElement *wan = gst_bin_get_by_name(GST_BIN(bin), "wan");
  for (; prompts && *prompts; ++prompts) {
    guint accepted = 0;
    if (prompts[1])
      g_signal_emit_by_name(wan, "enqueue", *prompts, nullptr, &accepted);
    else
      g_object_set(wan, "prompt", *prompts, nullptr);
  }
  gst_object_unref(wan);
  gst_object_unref(bin);
}

// gst-rtsp-server would tell the viewers only that there is no such stream.
bool elements_are_there() {
  GError *error = nullptr;
  GstElement *trial = gst_parse_launch_full(kLaunch, nullptr, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  if (!trial) g_printerr("%s. Is GST_PLUGIN_PATH set?\n", error->message);
  g_clear_error(&error);
  const bool there = trial;
  gst_clear_object(&trial);
  return there;
}

GstRTSPServer *make_server(const Options &options) {
  GstRTSPMediaFactory *factory = gst_rtsp_media_factory_new();
  gst_rtsp_media_factory_set_launch(factory, kLaunch);
  gst_rtsp_media_factory_set_shared(factory, TRUE);
  g_signal_connect(factory, "media-configure", G_CALLBACK(give_prompts), options.prompts);

  GstRTSPServer *server = gst_rtsp_server_new();
  gst_rtsp_server_set_address(server, options.address);
  gchar *service = g_strdup_printf("%d", options.port);
  gst_rtsp_server_set_service(server, service);
  g_free(service);
  GstRTSPMountPoints *mounts = gst_rtsp_server_get_mount_points(server);
  gst_rtsp_mount_points_add_factory(mounts, kPath, factory);  // takes the factory
  g_object_unref(mounts);
  return server;
}

// Viewers that went away without a word keep their session, and with it the pipeline, until it is cleaned up.
gboolean drop_dead_sessions(gpointer server) {
  GstRTSPSessionPool *pool = gst_rtsp_server_get_session_pool(GST_RTSP_SERVER(server));
  gst_rtsp_session_pool_cleanup(pool);
  g_object_unref(pool);
  return G_SOURCE_CONTINUE;
}

gboolean quit(gpointer loop) {
  g_main_loop_quit(static_cast<GMainLoop *>(loop));
  return G_SOURCE_CONTINUE;
}

int serve(const Options &options) {
  GstRTSPServer *server = make_server(options);
  const guint attached = gst_rtsp_server_attach(server, nullptr);
  if (attached) {
    // A script waits for this line.
    g_print("rtsp://%s:%d%s\n", options.address, gst_rtsp_server_get_bound_port(server), kPath);
    GMainLoop *loop = g_main_loop_new(nullptr, FALSE);
    g_timeout_add_seconds(2, drop_dead_sessions, server);
    g_unix_signal_add(SIGINT, quit, loop);
    g_unix_signal_add(SIGTERM, quit, loop);
    g_main_loop_run(loop);
    g_main_loop_unref(loop);
    g_source_remove(attached);
  } else {
    g_printerr("Cannot listen at %s, port %d.\n", options.address, options.port);
  }
  g_object_unref(server);
  return attached ? 0 : 1;
}

}  // namespace

int main(int argc, char **argv) {
  Options options;
  return parse(options, argc, argv) && elements_are_there() ? serve(options) : 1;
}
