// SPDX-License-Identifier: LGPL-2.1-or-later
#include "common.h"

#include <array>
#include <cstdio>
#include <iomanip>
#include <iostream>
#include <sstream>

#include "error.h"

namespace wan::bench {

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void parse_options(const char *summary, const GOptionEntry *entries, int argc, char **argv) {
  GOptionContext *context = g_option_context_new(nullptr);
  g_option_context_set_summary(context, summary);
  g_option_context_add_main_entries(context, entries, nullptr);
  GError *error = nullptr;
  const bool parsed = g_option_context_parse(context, &argc, &argv, &error);
  g_option_context_free(context);
  if (!parsed) throw invalid(error->message);
  if (argc > 1) throw invalid(std::string(argv[0]) + " does not take '" + argv[1] + "'");
}

Size parse_size(const char *text) {
  Size size{};
  if (std::sscanf(text, "%dx%d", &size.width, &size.height) != 2 || size.width <= 0 || size.height <= 0)
    throw invalid("--size must be WxH");
  return size;
}

at::ScalarType parse_dtype(const std::string &name) {
  if (name == "bf16" || name == "bfloat16") return at::kBFloat16;
  if (name == "fp32" || name == "float32") return at::kFloat;
  throw invalid("--dtype must be bf16 or fp32");
}

WanPixelLayout pixel_layout(WanPixelFormat format, Size size) {
  WanPixelLayout layout{};
  layout.format = format;
  layout.width = size.width;
  layout.height = size.height;
  const auto pixels = static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
  if (format == WAN_PIXEL_RGB) {
    layout.stride[0] = 3 * size.width;
    layout.size = 3 * pixels;
  } else {
    layout.stride[0] = layout.stride[1] = size.width;
    layout.offset[1] = pixels;
    layout.size = pixels * 3 / 2;
  }
  return layout;
}

std::string hex(uint64_t value) {
  std::ostringstream text;
  text << std::hex << value;
  return text.str();
}

void print(const Report &report, bool as_json) {
  if (as_json) {
    std::cout << report.dump() << std::endl;
    return;
  }
  for (const auto &[key, value] : report.items()) {
    const bool table = value.is_array() && !value.empty() && value[0].is_object();
    std::cout << std::left << std::setw(24) << key;
    if (!table) std::cout << value;
    std::cout << "\n";
    if (table)
      for (const auto &row : value) std::cout << "  " << row << "\n";
  }
}

}  // namespace wan::bench
