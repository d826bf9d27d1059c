// SPDX-License-Identifier: LGPL-2.1-or-later
//
// wan-bench: speed and memory of the engine, without a checkpoint. `wan-bench SUBCOMMAND --help` lists the
// options.
#include <functional>
#include <iostream>
#include <map>

#include "common.h"
#include "error.h"

namespace {

void run(int argc, char **argv) {
  static const std::map<std::string, std::function<void(int, char **)>> subcommands = {
      {"generate", wan::bench::generate}, {"transformer", wan::bench::transformer},
      {"decode", wan::bench::decode},     {"encode", wan::bench::encode},
      {"load", wan::bench::load},         {"text", wan::bench::text},
      {"causal", wan::bench::causal},     {"report", wan::bench::report}};
  const auto found = argc > 1 ? subcommands.find(argv[1]) : subcommands.end();
  if (found == subcommands.end())
    throw wan::invalid(
        "usage: wan-bench generate|transformer|causal|text|decode|encode|load|report [options]");
  found->second(argc - 1, argv + 1);
}

}  // namespace

int main(int argc, char **argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception &failure) {
    std::cerr << "wan-bench: " << failure.what() << "\n";
    return 1;
  }
}
