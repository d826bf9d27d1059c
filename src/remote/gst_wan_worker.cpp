// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The program gst-wan-worker.
#include <glib.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>

#include "error.h"
#include "remote/worker.h"

namespace {

using Text = std::unique_ptr<char, void (*)(gpointer)>;

wan::WorkerOptions parse(int argc, char **argv) {
  char *model = nullptr, *device = nullptr, *memory = nullptr, *listen = nullptr;
  const GOptionEntry entries[] = {
      {"model", 0, 0, G_OPTION_ARG_FILENAME, &model, "directory of the checkpoint that elements have", "DIR"},
      {"device", 0, 0, G_OPTION_ARG_STRING, &device, "as the element's property (auto)", "DEVICE"},
      {"memory", 0, 0, G_OPTION_ARG_STRING, &memory, "as the element's property (auto)", "MODE"},
      {"listen", 0, 0, G_OPTION_ARG_STRING, &listen, "IP address and port (127.0.0.1:5890)", "ADDRESS"},
      {}};
  const std::unique_ptr<GOptionContext, void (*)(GOptionContext *)> context(
      g_option_context_new(
          "- gives the devices of this host to a wansrc on another one that has the same GST_WAN_SECRET"),
      g_option_context_free);
  g_option_context_add_main_entries(context.get(), entries, nullptr);
  GError *error = nullptr;
  const bool parsed = g_option_context_parse(context.get(), &argc, &argv, &error);
  const std::unique_ptr<GError, void (*)(GError *)> failure(error, g_error_free);
  const Text owned[] = {{model, g_free}, {device, g_free}, {memory, g_free}, {listen, g_free}};
  if (!parsed) throw wan::invalid(error->message);
  if (argc > 1) throw wan::invalid("There is no argument '" + wan::printable(argv[1]) + "': see --help");
  if (!model) throw wan::invalid("--model is missing: give the directory of a checkpoint");
  wan::WorkerOptions options{.model_dir = model};
  if (device) options.device = device;
  if (memory) options.memory = memory;
  if (listen) options.listen = listen;
  return options;
}

}  // namespace

int main(int argc, char **argv) {
  try {
    wan::serve_elements(parse(argc, argv));
  } catch (const std::exception &failure) {
    std::cerr << "gst-wan-worker: " << wan::printable(failure.what(), 1024) << "\n";
    return EXIT_FAILURE;
  }
}
