// A live channel that is made from text: streams wansrc to browsers by WebRTC, and lets them type what comes
// next. README.md says how to use it.
//
//     live-studio       main loop                          options  the command line
//     web_server        the page and its WebSocket         page/    the page itself
//     listener, traffic connections to it, and their limits
//     studio, session   what pages send, and are told      json     their messages
//     source, picture   wansrc's settings and state, and what clips begin with
//     history           what was on air, to be shown again
//     pipeline, viewer  encoders, and a branch of the pipeline for each viewer
//     recording         the same for a file
//     negotiation       what a page says of its side of the connection
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#include <glib-unix.h>
#include <gst/gst.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "options.h"
#include "studio.h"
#include "web_server.h"

namespace {

using namespace studio;

void say_where(const WebServer &server, const Options &options) {
  std::printf("The studio is at %s\n", server.url().c_str());
  if (!options.is_local)
    std::printf("To steer it: %s#%s\n", server.url().c_str(), options.network.token.c_str());
  std::fflush(stdout);
  if (options.is_local) return;
  std::fprintf(
      stderr,
      "warning: whoever reaches this address can watch; steering takes the second link. The pages are "
      "not encrypted.\n");
}

int run(const Options &options) {
  g_autoptr(GMainLoop) loop = g_main_loop_new(nullptr, FALSE);
  int status = EXIT_SUCCESS;
  Studio studio(options.video, options.source, options.network, options.recordings, [&](const std::string &error) {
    if (!error.empty()) status = EXIT_FAILURE;
    if (!error.empty()) std::fprintf(stderr, "error: %s\n", error.c_str());
    g_main_loop_quit(loop);
  });
  const WebServer server(
      options.address, options.port, [&](guint clip) { return studio.picture(clip); },
      [&](SoupWebsocketConnection *websocket, const ConnectionPtr &connection) {
        studio.add(websocket, connection);
      });
  const auto on_signal = [](gpointer studio) -> gboolean {
    static_cast<Studio *>(studio)->close();
    return G_SOURCE_CONTINUE;
  };
  g_unix_signal_add(SIGINT, on_signal, &studio);
  g_unix_signal_add(SIGTERM, on_signal, &studio);
  studio.play();
  say_where(server, options);
  g_main_loop_run(loop);
  return status;
}

}  // namespace

int main(int argc, char **argv) {
  try {
    return run(parse_options(&argc, &argv));
  } catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
