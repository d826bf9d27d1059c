// SPDX-License-Identifier: LGPL-2.1-or-later
//
// SentencePiece's precompiled normalization, applied as Hugging Face's tokenizers library does it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/bounded_text.h"

namespace wan {

/**
 * A `precompiled_charsmap`: a Darts double-array trie from character sequences to offsets in a pool of
 * NUL-terminated replacements.
 *
 * SentencePiece replaces the longest match at each position; tokenizers, whose ids we want, looks at one
 * grapheme cluster at a time and takes the shortest match. They differ for characters with combining marks.
 *
 * Source: sentencepiece/normalizer.cc (format), tokenizers' Precompiled normalizer.
 */
class Charsmap {
 public:
  /** @throws Error WAN_INVALID if the blob's sizes do not fit. */
  explicit Charsmap(std::string_view blob);

  /** Appends the normalized text. Any UTF-8. @throws Error WAN_INVALID if the trie points outside of the blob
   * or at text that is not UTF-8, or where `out` has no room. */
  void normalize(std::string_view utf8, BoundedText &out) const;

 private:
  const char *find(std::string_view key) const;
  void append_normalized(std::string_view key, BoundedText &out) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace wan
