// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The unigram language model of SentencePiece.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "run_context.h"
#include "text/prefix_table.h"

namespace wan {

/**
 * Cuts a text into the pieces whose scores (log probabilities) have the greatest sum.
 *
 * Equal to Hugging Face tokenizers' Unigram model down to ties: double precision, the first found wins. A
 * character that no piece begins with costs the lowest score - 10; a run of them is one unknown piece or,
 * with `byte_fallback`, the pieces "<0x00>" to "<0xFF>" of its bytes.
 *
 * Source: Kudo, "Subword Regularization", 2018; tokenizers' Unigram model.
 */
class Unigram {
 public:
  struct Piece {
    std::string text;
    double score;
  };

  /** A piece's id is its index. @throws Error WAN_INVALID if `unk_id` is not one, or a piece is
   * too long (PrefixTable). */
  Unigram(const std::vector<Piece> &pieces, size_t unk_id, bool byte_fallback);

  /** Appends the ids of a valid UTF-8 text. @throws Error WAN_CANCELLED */
  void encode(std::string_view text, std::vector<int32_t> &ids, const RunContext &context) const;

  /** The id of a piece, or -1. */
  int32_t id(std::string_view piece) const { return ids_.find(piece); }

 private:
  struct Step;
  std::vector<Step> best_path(std::string_view text, const RunContext &context) const;
  void append_unknown(std::string_view text, std::vector<int32_t> &ids) const;

  PrefixTable ids_;
  std::vector<double> scores_;
  double unknown_score_;
  int32_t unk_id_;
  bool byte_fallback_;
};

}  // namespace wan
