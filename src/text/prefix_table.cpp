// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/prefix_table.h"

#include <utility>

#include "error.h"

namespace wan {

PrefixTable::PrefixTable(std::vector<Entry> entries) {
  for (const Entry &entry : entries)
    if (entry.text.size() > longest_entry)
      throw invalid("it has a token of more than " + std::to_string(longest_entry) + " bytes: '" +
                    printable(entry.text, 40) + "'");
  std::ranges::stable_sort(entries, {}, &Entry::text);
  for (Entry &entry : entries) {
    if (!entries_.empty() && entries_.back().text == entry.text) entries_.pop_back();
    entries_.push_back(std::move(entry));
  }
}

int32_t PrefixTable::find(std::string_view text) const {
  const auto found = std::ranges::lower_bound(entries_, text, {}, &Entry::text);
  return found != entries_.end() && found->text == text ? found->id : none;
}

}  // namespace wan
