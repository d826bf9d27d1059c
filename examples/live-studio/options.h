// The command line.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <string>

#include "pipeline.h"
#include "recording.h"
#include "source.h"
#include "viewer.h"

namespace studio {

struct Options {
  std::string address = "127.0.0.1";
  int port = 8080;
  bool is_local = true;  // only this machine reaches the address
  VideoOptions video;
  SourceOptions source;
  NetworkOptions network;
  RecordingOptions recordings;
};

/** Reads the arguments, and initialises GStreamer. Throws std::runtime_error. */
Options parse_options(int *argc, char ***argv);

}  // namespace studio
