// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What the subcommands of wan-bench share: options, layouts and the printing of a report.
#pragma once

#include <c10/core/ScalarType.h>
#include <glib.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "wan/engine.h"

namespace wan::bench {

using Report = nlohmann::ordered_json;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start);

/// Fills what `entries` point to. `summary` is for --help. Throws wan::Error (WAN_INVALID) for an unknown or
/// stray argument.
void parse_options(const char *summary, const GOptionEntry *entries, int argc, char **argv);

struct Size {
  int width, height;
};
/// "1280x720". Throws wan::Error (WAN_INVALID).
Size parse_size(const char *text);
/// bf16, bfloat16, fp32 or float32. Throws wan::Error (WAN_INVALID).
at::ScalarType parse_dtype(const std::string &name);

/// Frames without padding. format: NV12 or RGB.
WanPixelLayout pixel_layout(WanPixelFormat format, Size size);

std::string hex(uint64_t value);

/// One line of JSON, or a line for each value and for each row of a table.
void print(const Report &report, bool as_json);

// The subcommands. argv[0] is the subcommand's name.
void generate(int argc, char **argv);
void causal(int argc, char **argv);
void decode(int argc, char **argv);
void encode(int argc, char **argv);
void transformer(int argc, char **argv);
void text(int argc, char **argv);
void load(int argc, char **argv);
void report(int argc, char **argv);

}  // namespace wan::bench
