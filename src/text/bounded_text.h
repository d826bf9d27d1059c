// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A text that a tokenizer's normalizers write, which may not grow as they like.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "error.h"

namespace wan {

class BoundedText {
 public:
  /** Of at most `most` bytes. */
  explicit BoundedText(size_t most) : most_(most) {}

  /** @throws Error WAN_INVALID if it would become too long. */
  BoundedText &operator+=(std::string_view more) {
    if (more.size() > most_ - text_.size())
      throw invalid("its normalizers make more than " + std::to_string(most_) +
                    " bytes of a part of the prompt");
    text_ += more;
    return *this;
  }
  std::string take() && { return std::move(text_); }

 private:
  const size_t most_;
  std::string text_;
};

}  // namespace wan
