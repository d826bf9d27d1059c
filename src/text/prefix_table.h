// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Texts with ids, searched by what a longer text starts with.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace wan {

/**
 * The search narrows a sorted list byte by byte, so it is over where no entry goes on, however long the text
 * and the longest entry are.
 */
class PrefixTable {
 public:
  struct Entry {
    std::string text;
    int32_t id;
  };
  static constexpr int32_t none = -1;
  /** In bytes. It bounds what one search can cost. */
  static constexpr size_t longest_entry = 1024;

  PrefixTable() = default;
  /** Of equal texts the last one counts; an empty one is never found. @throws Error WAN_INVALID if a text is
   * longer than `longest_entry`. */
  explicit PrefixTable(std::vector<Entry> entries);

  /** The id of exactly this text, or `none`. */
  int32_t find(std::string_view text) const;

  /** `visit(length, id)` for each entry that the text starts with, the shortest first. */
  template <typename Visit>
  void visit_prefixes(std::string_view text, Visit visit) const {
    auto first = entries_.begin(), last = entries_.end();
    for (size_t depth = 0; depth < text.size() && first != last; ++depth) {
      // All that are left start with `depth` bytes of the text; one that ends there is the first.
      if (first->text.size() == depth && ++first == last) return;
      const auto byte = [depth](const Entry &entry) { return static_cast<unsigned char>(entry.text[depth]); };
      const auto wanted = static_cast<unsigned char>(text[depth]);
      if (byte(*first) != wanted || byte(*(last - 1)) != wanted) {
        first = std::lower_bound(first, last, wanted,
                                 [&](const Entry &e, unsigned char c) { return byte(e) < c; });
        last = std::upper_bound(first, last, wanted,
                                [&](unsigned char c, const Entry &e) { return c < byte(e); });
      }
      if (first != last && first->text.size() == depth + 1) visit(depth + 1, first->id);
    }
  }

 private:
  std::vector<Entry> entries_;  // sorted by bytes, each text once
};

}  // namespace wan
