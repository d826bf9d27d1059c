// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/unigram.h"

#include <glib.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "error.h"

namespace wan {
namespace {

constexpr double unknown_penalty = 10;
constexpr int32_t none = PrefixTable::none;

size_t character_length(const char *at) {
  return g_utf8_next_char(at) - at;
}

}  // namespace

/** The best way to a position of the text: its last piece. */
struct Unigram::Step {
  double score = 0;
  size_t start = 0;
  int32_t id = none;  // none: not reached yet
};

Unigram::Unigram(const std::vector<Piece> &pieces, size_t unk_id, bool byte_fallback)
    : unk_id_(unk_id), byte_fallback_(byte_fallback) {
  if (unk_id >= pieces.size() || pieces.size() > std::numeric_limits<int32_t>::max())
    throw invalid("its unk_id is not the id of a piece");
  std::vector<PrefixTable::Entry> entries;
  for (const Piece &piece : pieces) {
    entries.push_back({piece.text, static_cast<int32_t>(scores_.size())});
    scores_.push_back(piece.score);
  }
  ids_ = PrefixTable(std::move(entries));
  unknown_score_ = *std::ranges::min_element(scores_) - unknown_penalty;
}

/** Viterbi: for every end of a character, the best way to it. */
std::vector<Unigram::Step> Unigram::best_path(std::string_view text, const RunContext &context) const {
  std::vector<Step> steps(text.size() + 1);
  const auto reach = [&steps](size_t end, size_t start, int32_t id, double score) {
    score += steps[start].score;
    if (steps[end].id == none || score > steps[end].score) steps[end] = {score, start, id};
  };
  for (size_t start = 0, next; start < text.size(); start = next) {
    next = start + character_length(&text[start]);
    context.check();
    bool character_is_piece = false;
    ids_.visit_prefixes(text.substr(start), [&](size_t length, int32_t piece) {
      reach(start + length, start, piece, scores_[piece]);
      character_is_piece = character_is_piece || start + length == next;
    });
    if (!character_is_piece) reach(next, start, unk_id_, unknown_score_);
  }
  return steps;
}

void Unigram::append_unknown(std::string_view text, std::vector<int32_t> &ids) const {
  if (id(text) == unk_id_) return ids.push_back(unk_id_);  // the unknown piece's own name
  std::vector<int32_t> bytes;
  for (unsigned char byte : byte_fallback_ ? text : std::string_view()) {
    char name[sizeof "<0x00>"];
    g_snprintf(name, sizeof name, "<0x%02X>", byte);
    bytes.push_back(id(name));
  }
  if (bytes.empty() || std::ranges::count(bytes, none) > 0) bytes = {unk_id_};
  ids.insert(ids.end(), bytes.begin(), bytes.end());
}

void Unigram::encode(std::string_view text, std::vector<int32_t> &ids, const RunContext &context) const {
  const std::vector<Step> steps = best_path(text, context);
  std::vector<Step> path;  // from the last piece to the first; a step's score is not used any more
  for (size_t end = text.size(); end > 0; end = steps[end].start) path.push_back(steps[end]);
  for (size_t i = path.size(); i-- > 0;) {
    if (path[i].id != unk_id_) {
      ids.push_back(path[i].id);
      continue;
    }
    const size_t start = path[i].start;
    while (i > 0 && path[i - 1].id == unk_id_) --i;
    const size_t end = i > 0 ? path[i - 1].start : text.size();
    append_unknown(text.substr(start, end - start), ids);
  }
}

}  // namespace wan
