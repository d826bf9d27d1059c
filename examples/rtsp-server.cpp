// An RTSP server that shows what wansrc makes of its prompts. One pipeline, which starts with the first
// viewer and ends with the last, serves them all.
//
//     rtsp-server --prompt "a red circle bouncing on a blue background"
//     ffplay rtsp://127.0.0.1:8554/wan
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <glib-unix.h>
#include <gst/rtsp-server/rtsp-server.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <string_view>

namespace {

// Viewers at once; a connection that asks for nothing has ten seconds, and gives way before that if others
// come. gst-rtsp-server has no limits of its own.
constexpr guint kMostClients = 64;
constexpr gint64 kLongestRequest = 10 * G_USEC_PER_SEC, kShortestRequest = G_USEC_PER_SEC;
constexpr guint kLongestStandstill = 10000;  // milliseconds in which a viewer reads nothing of what waits
constexpr guint kLongestBody = 4096;         // bytes; requests of viewers have none
constexpr guint64 kMostBytesASecond = 64 * 1024;  // of what viewers send: requests and reports
constexpr guint kLookMilliseconds = 200;

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

// A connection. It is cut by its socket, and its client then closes it in its own thread: closing it in
// another is a race.
struct Client {
  explicit Client(GstRTSPClient *client)
      : socket(G_SOCKET(
            g_object_ref(gst_rtsp_connection_get_read_socket(gst_rtsp_client_get_connection(client))))) {
    const int descriptor = g_socket_get_fd(socket);
    setsockopt(descriptor, IPPROTO_TCP, TCP_USER_TIMEOUT, &kLongestStandstill, sizeof kLongestStandstill);
  }
  ~Client() { g_object_unref(socket); }

  static Client *of(GstRTSPClient *client) {
    return static_cast<Client *>(g_object_get_data(G_OBJECT(client), "client"));
  }
  gint64 age() const { return g_get_monotonic_time() - since; }
  void cut() const { g_socket_shutdown(socket, TRUE, TRUE, nullptr); }
  guint64 bytes_received() const {
    tcp_info info = {};
    socklen_t size = sizeof info;
    getsockopt(g_socket_get_fd(socket), IPPROTO_TCP, TCP_INFO, &info, &size);
    return info.tcpi_bytes_received;
  }

  GSocket *socket;
  gint64 since = g_get_monotonic_time();
};

bool has_session(GstRTSPClient *client) {
  GList *sessions = gst_rtsp_client_session_filter(client, nullptr, nullptr);
  const bool has = sessions;
  g_list_free_full(sessions, g_object_unref);
  return has;
}

void cut_harmful(gpointer data, gpointer) {
  auto *client = GST_RTSP_CLIENT(data);
  const Client *own = Client::of(client);
  if (!own) return;
  const guint64 allowed = kMostBytesASecond * guint64(own->age() / G_USEC_PER_SEC + 1);
  const bool is_idle = own->age() > kLongestRequest && !has_session(client);
  if (is_idle || own->bytes_received() > allowed) own->cut();
}

gboolean look_after_clients(gpointer server) {
  GList *clients = gst_rtsp_server_client_filter(GST_RTSP_SERVER(server), nullptr, nullptr);
  g_list_foreach(clients, cut_harmful, nullptr);
  g_list_free_full(clients, g_object_unref);
  return G_SOURCE_CONTINUE;
}

// The one that has asked for nothing for the longest time; null if there is none.
const Client *idlest(GList *clients) {
  const Client *idlest = nullptr;
  gint64 longest = kShortestRequest;
  for (GList *item = clients; item; item = item->next) {
    const Client *client = Client::of(GST_RTSP_CLIENT(item->data));
    if (!client || client->age() < longest || has_session(GST_RTSP_CLIENT(item->data))) continue;
    longest = client->age();
    idlest = client;
  }
  return idlest;
}

void refuse(const Client &client) {
  constexpr std::string_view kNoRoom = "RTSP/1.0 503 Service Unavailable\r\n\r\n";
  g_socket_send(client.socket, kNoRoom.data(), kNoRoom.size(), nullptr, nullptr);
  client.cut();
}

void take_client(GstRTSPServer *server, GstRTSPClient *client, gpointer) {
  auto *own = new Client(client);
  g_object_set_data_full(G_OBJECT(client), "client", own,
                         [](gpointer client) { delete static_cast<Client *>(client); });
  GList *clients = gst_rtsp_server_client_filter(server, nullptr, nullptr);
  const Client *other = idlest(clients);
  if (g_list_length(clients) > kMostClients) other ? other->cut() : refuse(*own);
  g_list_free_full(clients, g_object_unref);
}

GstRTSPServer *make_server(const Options &options) {
  GstRTSPMediaFactory *factory = gst_rtsp_media_factory_new();
  gst_rtsp_media_factory_set_launch(factory, kLaunch);
  gst_rtsp_media_factory_set_shared(factory, TRUE);
  g_signal_connect(factory, "media-configure", G_CALLBACK(give_prompts), options.prompts);

  GstRTSPServer *server = gst_rtsp_server_new();
  gst_rtsp_server_set_address(server, options.address);
  gst_rtsp_server_set_backlog(server, SOMAXCONN);
  gst_rtsp_server_set_content_length_limit(server, kLongestBody);
  g_signal_connect(server, "client-connected", G_CALLBACK(take_client), nullptr);
  GstRTSPSessionPool *pool = gst_rtsp_server_get_session_pool(server);
  gst_rtsp_session_pool_set_max_sessions(pool, kMostClients);
  g_object_unref(pool);
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
    g_timeout_add(kLookMilliseconds, look_after_clients, server);
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
