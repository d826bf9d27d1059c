// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/charsmap.h"

#include <glib.h>
#include <unigbrk.h>

#include <cstring>

#include "error.h"

namespace wan {
namespace {

// The parts of a unit of a Darts double array.
bool has_leaf(uint32_t unit) {
  return unit >> 8 & 1;
}
uint32_t value(uint32_t unit) {
  return unit & 0x7FFFFFFF;
}
uint32_t label(uint32_t unit) {
  return unit & 0x800000FF;
}
uint32_t offset(uint32_t unit) {
  return unit >> 10 << ((unit & 0x200) >> 6);
}

/** Only clusters of fewer bytes than these are looked up as a whole. */
constexpr size_t max_cluster_bytes = 6;

}  // namespace

Charsmap::Charsmap(std::string_view blob) {
  uint32_t trie_bytes = 0;
  if (blob.size() < sizeof trie_bytes) throw invalid("its precompiled_charsmap is too short");
  memcpy(&trie_bytes, blob.data(), sizeof trie_bytes);
  trie_bytes = GUINT32_FROM_LE(trie_bytes);
  blob.remove_prefix(sizeof trie_bytes);
  if (trie_bytes == 0 || trie_bytes % sizeof(uint32_t) != 0 || trie_bytes > blob.size())
    throw invalid("its precompiled_charsmap has a wrong size");
  trie_.resize(trie_bytes / sizeof(uint32_t));
  memcpy(trie_.data(), blob.data(), trie_bytes);
  for (uint32_t &unit : trie_) unit = GUINT32_FROM_LE(unit);
  replacements_ = blob.substr(trie_bytes);
}

/** What the shortest prefix of `key` that the trie has becomes; null if it has none. */
const char *Charsmap::find(std::string_view key) const {
  const auto unit_at = [this](uint32_t node) {
    if (node >= trie_.size()) throw invalid("its precompiled_charsmap is corrupt");
    return trie_[node];
  };
  uint32_t node = offset(unit_at(0));
  for (unsigned char byte : key) {
    if (byte == 0) return nullptr;
    node ^= byte;
    const uint32_t unit = unit_at(node);
    if (label(unit) != byte) return nullptr;
    node ^= offset(unit);
    if (!has_leaf(unit)) continue;
    const uint32_t at = value(unit_at(node));
    if (at > replacements_.size()) throw invalid("its precompiled_charsmap is corrupt");
    return replacements_.c_str() + at;
  }
  return nullptr;
}

void Charsmap::append_normalized(std::string_view key, BoundedText &out) const {
  const char *replacement = find(key);
  if (!replacement)
    out += key;
  else if (g_utf8_validate(replacement, -1, nullptr))
    out += replacement;
  else
    throw invalid("its precompiled_charsmap is corrupt");
}

void Charsmap::normalize(std::string_view utf8, BoundedText &out) const {
  const auto *at = reinterpret_cast<const uint8_t *>(utf8.data()), *end = at + utf8.size();
  while (at < end) {
    const uint8_t *next = u8_grapheme_next(at, end);
    const std::string_view cluster(reinterpret_cast<const char *>(at), next - at);
    if (cluster.size() < max_cluster_bytes && find(cluster)) {
      append_normalized(cluster, out);
    } else {
      for (const char *c = cluster.data(); c < cluster.data() + cluster.size(); c = g_utf8_next_char(c))
        append_normalized({c, static_cast<size_t>(g_utf8_next_char(c) - c)}, out);
    }
    at = next;
  }
}

}  // namespace wan
