// SPDX-License-Identifier: LGPL-2.1-or-later
#include "error.h"

#include <glib.h>

#include <algorithm>
#include <iomanip>
#include <sstream>

namespace wan {

namespace {

/// Bytes of the printable character that the text starts with; 0: it starts with none.
size_t printable_length(std::string_view text) {
  const gunichar c = g_utf8_get_char_validated(text.data(), static_cast<gssize>(text.size()));
  // What is no character is beyond Unicode.
  return g_unichar_isprint(c) ? static_cast<size_t>(g_utf8_next_char(text.data()) - text.data()) : 0;
}

}  // namespace

std::string printable(std::string_view text, size_t most) {
  std::string out;
  while (!text.empty() && out.size() < most) {
    const size_t length = printable_length(text);
    if (length == 0) {
      char escape[sizeof "\\x00"];
      g_snprintf(escape, sizeof escape, "\\x%02X", static_cast<unsigned char>(text.front()));
      out += escape;
    }
    out += text.substr(0, length);
    text.remove_prefix(length ? length : 1);
  }
  if (!text.empty()) out += "…";
  return out;
}

std::string_view whole_characters(std::string_view utf8, size_t most) {
  const char *end = nullptr;
  g_utf8_validate(utf8.data(), static_cast<gssize>(std::min(utf8.size(), most)), &end);
  return utf8.substr(0, static_cast<size_t>(end - utf8.data()));
}

std::string number_text(double value) {
  std::ostringstream text;
  text << std::setprecision(10) << value;
  return text.str();
}

}  // namespace wan
