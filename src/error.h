// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Errors of the engine: a kind, and one sentence that a user can act on.
#pragma once

#include <cstddef>
#include <source_location>
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
/// them short. `where`: the caller, for the debug text of the message that the element posts.
class Error : public std::runtime_error {
 public:
  Error(WanStatus kind, const std::string &message,
        const std::source_location &where = std::source_location::current())
      : std::runtime_error(printable(message, message.npos)), kind_(kind), where_(where) {}
  WanStatus kind() const { return kind_; }
  const std::source_location &where() const { return where_; }

 private:
  WanStatus kind_;
  std::source_location where_;
};

inline Error not_found(const std::string &message,
                       const std::source_location &where = std::source_location::current()) {
  return {WAN_NOT_FOUND, message, where};
}
inline Error invalid(const std::string &message,
                     const std::source_location &where = std::source_location::current()) {
  return {WAN_INVALID, message, where};
}

/// Of a message of LibTorch, the sentence: a C++ backtrace and hints follow.
inline std::string first_line(const std::string &message) {
  return message.substr(0, message.find('\n'));
}

}  // namespace wan
