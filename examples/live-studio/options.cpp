// SPDX-License-Identifier: LGPL-2.1-or-later
#include "options.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <unistd.h>

#include <array>
#include <random>
#include <stdexcept>
#include <utility>

namespace studio {
namespace {

bool is_writable(const std::string &directory) {
  return g_file_test(directory.c_str(), G_FILE_TEST_IS_DIR) && g_access(directory.c_str(), W_OK) == 0;
}

void check(const char *name, gint64 value, gint64 least, gint64 most) {
  if (value >= least && value <= most) return;
  throw std::runtime_error(std::string("--") + name + " must be from " + std::to_string(least) + " to " +
                           std::to_string(most) + ".");
}

void check_size(const char *name, int value) {
  check(name, value, 0, 8192);
  if (value % 16) throw std::runtime_error(std::string("--") + name + " must be a multiple of 16.");
}

void check(const Options &options) {
  check("port", options.port, 0, 65535);
  check_size("width", options.video.width);
  check_size("height", options.video.height);
  check("fps", options.video.fps, 0, 120);
  check("steps", options.source.steps, 0, 1000);
  check("num-frames", options.source.num_frames, 0, 100000);
  check("seed", options.source.seed, -1, G_MAXINT64);
  check("recording-limit", options.recordings.most_mebibytes, 1, 1 << 20);
  if (const std::string &directory = options.recordings.directory;
      !directory.empty() && !is_writable(directory))
    throw std::runtime_error("--recordings must be a directory that can be written to, not \"" + directory +
                             "\".");
  if (!options.network.stun.empty() && !options.network.stun.starts_with("stun://"))
    throw std::runtime_error("--stun must be stun://HOST:PORT.");
}

std::string random_token() {
  std::random_device random;  // the system's
  std::string token;
  for (int i = 0; i < 24; ++i) token += "abcdefghijklmnopqrstuvwxyz234567"[random() % 32];
  return token;
}

// Video leaves by the address that the page is served at, so that what is served to this machine alone stays
// on it.
void choose_network(Options *options) {
  g_autoptr(GInetAddress) address = g_inet_address_new_from_string(options->address.c_str());
  if (!address)
    throw std::runtime_error("--address must be an IP address, not \"" + options->address + "\".");
  options->is_local = g_inet_address_get_is_loopback(address);
  if (!g_inet_address_get_is_any(address)) options->network.address = options->address;
  if (!options->is_local) options->network.token = random_token();
}

// Takes what GLib has allocated.
void take(char *from, std::string *to) {
  if (from) *to = from;
  g_free(from);
}

}  // namespace

Options parse_options(int *argc, char ***argv) {
  Options options;
  options.source.prompt = "a red circle bouncing on a blue background";
  char *address = nullptr, *model = nullptr, *prompt = nullptr, *stun = nullptr, *image = nullptr;
  char *recordings = nullptr;
  const std::array entries = {
      GOptionEntry{"address", 'a', 0, G_OPTION_ARG_STRING, &address,
                   "IP address to serve at (127.0.0.1: this machine only)", "IP"},
      GOptionEntry{"port", 'p', 0, G_OPTION_ARG_INT, &options.port, "Port to serve at; 0: a free one (8080)",
                   "PORT"},
      GOptionEntry{"model", 'm', 0, G_OPTION_ARG_FILENAME, &model,
                   "Directory of the checkpoint (the embedded one)", "DIR"},
      GOptionEntry{"width", 0, 0, G_OPTION_ARG_INT, &options.video.width, "Width, a multiple of 16",
                   "PIXELS"},
      GOptionEntry{"height", 0, 0, G_OPTION_ARG_INT, &options.video.height, "Height, a multiple of 16",
                   "PIXELS"},
      GOptionEntry{"fps", 0, 0, G_OPTION_ARG_INT, &options.video.fps, "Frames a second", "N"},
      GOptionEntry{"prompt", 0, 0, G_OPTION_ARG_STRING, &prompt, "What is shown while nothing is queued",
                   "TEXT"},
      GOptionEntry{"image", 0, 0, G_OPTION_ARG_FILENAME, &image,
                   "What clips begin with that have no picture of their own, if the model takes one", "FILE"},
      GOptionEntry{"steps", 0, 0, G_OPTION_ARG_INT, &options.source.steps, "Denoising steps", "N"},
      GOptionEntry{"num-frames", 0, 0, G_OPTION_ARG_INT, &options.source.num_frames, "Frames of a clip", "N"},
      GOptionEntry{"seed", 0, 0, G_OPTION_ARG_INT64, &options.source.seed,
                   "Seed of the first clip (-1: random)", "N"},
      GOptionEntry{"stun", 0, 0, G_OPTION_ARG_STRING, &stun,
                   "STUN server, for viewers beyond the local network", "stun://HOST:PORT"},
      GOptionEntry{"recordings", 0, 0, G_OPTION_ARG_FILENAME, &recordings,
                   "Directory for recordings; without it nothing is recorded", "DIR"},
      GOptionEntry{"recording-limit", 0, 0, G_OPTION_ARG_INT64, &options.recordings.most_mebibytes,
                   "Size of a recording at which it ends (4096)", "MIB"},
      GOptionEntry{}};
  g_autoptr(GOptionContext) context = g_option_context_new("- live video from text, to browsers");
  g_option_context_set_summary(context, "What is not given is as the checkpoint suggests.");
  g_option_context_add_main_entries(context, entries.data(), nullptr);
  g_option_context_add_group(context, gst_init_get_option_group());
  g_autoptr(GError) error = nullptr;
  const bool parsed = g_option_context_parse(context, argc, argv, &error);
  take(address, &options.address);
  take(model, &options.source.model);
  take(prompt, &options.source.prompt);
  take(image, &options.source.image);
  take(stun, &options.network.stun);
  take(recordings, &options.recordings.directory);
  if (!parsed) throw std::runtime_error(error->message);
  if (*argc > 1) throw std::runtime_error(std::string("unknown argument \"") + (*argv)[1] + "\"");
  check(options);
  choose_network(&options);
  return options;
}

}  // namespace studio
