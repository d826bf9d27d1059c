// Errors of the engine: a kind, and one sentence that a user can act on.
#pragma once

#include <stdexcept>
#include <string>

#include "wan/engine.h"

namespace wan {

class Error : public std::runtime_error {
 public:
  Error(WanStatus kind, const std::string &message) : std::runtime_error(message), kind_(kind) {}
  WanStatus kind() const { return kind_; }

 private:
  WanStatus kind_;
};

inline Error not_found(const std::string &message) {
  return {WAN_NOT_FOUND, message};
}
inline Error invalid(const std::string &message) {
  return {WAN_INVALID, message};
}

/// Of a message of LibTorch, the sentence: a C++ backtrace and hints follow.
inline std::string first_line(const std::string &message) {
  return message.substr(0, message.find('\n'));
}

}  // namespace wan
