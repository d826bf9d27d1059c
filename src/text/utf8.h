// Text for those who take UTF-8 only.
#pragma once

#include <cstddef>
#include <string>

namespace wan {

/// The text up to `most` bytes, cut between two characters; U+FFFD stands for bytes that are no UTF-8.
std::string valid_utf8(const std::string &text, size_t most);

}  // namespace wan
