// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Errors of the engine: a kind, and one sentence that a user can act on.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

#include "wan/engine.h"

namespace wan {

/// A text from a file or a user, fit for a terminal: control characters, invisible ones and what is not UTF-8
/// as
/// "\x1B", and with "…" for what is beyond `most` bytes. What is printable stays as it is.
std::string printable(std::string_view text, size_t most = 160);

/// The valid text up to `most` bytes, cut between two characters.
std::string_view whole_characters(std::string_view utf8, size_t most);

/// A number as one would type it.
std::string number_text(double value);

/// The message is made printable as a whole; names from files go through printable() besides, which keeps
/// them short. File and line are the caller's, for the debug text of the message that the element posts.
/// (std::source_location needs a newer clang than Debian 12 fuzzes with.)
class Error : public std::runtime_error {
 public:
  Error(WanStatus kind, const std::string &message, const char *file = __builtin_FILE(),
        int line = __builtin_LINE())
      : std::runtime_error(printable(message, message.npos)), kind_(kind), file_(file), line_(line) {}
  WanStatus kind() const { return kind_; }
  const char *file() const { return file_; }
  int line() const { return line_; }

 private:
  WanStatus kind_;
  const char *file_;
  int line_;
};

inline Error not_found(const std::string &message, const char *file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  return {WAN_NOT_FOUND, message, file, line};
}
inline Error invalid(const std::string &message, const char *file = __builtin_FILE(),
                     int line = __builtin_LINE()) {
  return {WAN_INVALID, message, file, line};
}

/// Of a message of LibTorch, the sentence: a C++ backtrace and hints follow.
inline std::string first_line(const std::string &message) {
  return message.substr(0, message.find('\n'));
}

}  // namespace wan
