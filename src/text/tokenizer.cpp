// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/tokenizer.h"

#include <glib.h>
#include <unictype.h>

#include <functional>
#include <limits>
#include <utility>

#include "checkpoint/input_file.h"
#include "checkpoint/json_file.h"
#include "error.h"
#include "text/bounded_text.h"
#include "text/charsmap.h"
#include "text/prefix_table.h"
#include "text/unigram.h"

namespace wan {
namespace {

using Ids = std::vector<int32_t>;
using Normalizer = std::function<void(std::string_view, BoundedText &)>;

/** Stands for the space in front of a word. */
constexpr std::string_view metaspace = "▁";

constexpr uintmax_t most_file_bytes = 64 << 20;  // UMT5's has 17 MiB
constexpr size_t most_normalizers = 16;
// The longest compatibility form is 11 times as long as its character.
constexpr size_t most_growth = 32, growth_of_any = 1024;

/** What a piece of text becomes ids by. */
struct Sink {
  Ids &ids;
  size_t most_ids;  // what comes behind them is cut off, so it need not be made
  const RunContext &context;

  bool is_full() const { return ids.size() >= most_ids; }
};

// ---- Text ----

bool is_whitespace(gunichar c) {
  return g_unichar_isspace(c) || c == 0x0B || c == 0x85;
}

/** The end of the whitespace at the start of the text. */
size_t leading_whitespace(std::string_view text) {
  size_t end = 0;
  while (end < text.size() && is_whitespace(g_utf8_get_char(&text[end])))
    end = g_utf8_next_char(&text[end]) - &text[0];
  return end;
}

/** The start of the whitespace at the end of the text. */
size_t trailing_whitespace(std::string_view text) {
  size_t start = text.size();
  while (start > 0) {
    const char *last = g_utf8_prev_char(text.data() + start);
    if (!is_whitespace(g_utf8_get_char(last))) break;
    start = last - text.data();
  }
  return start;
}

/** Rust's \\w, by which tokenizers tells words. */
bool is_word_character(gunichar c) {
  return uc_is_property_alphabetic(c) || uc_is_property_join_control(c) ||
         uc_is_general_category_withtable(c, UC_CATEGORY_MASK_M | UC_CATEGORY_MASK_Nd | UC_CATEGORY_MASK_Pc);
}

bool starts_with_word(std::string_view text) {
  return !text.empty() && is_word_character(g_utf8_get_char(text.data()));
}
bool ends_with_word(std::string_view text) {
  return !text.empty() && is_word_character(g_utf8_get_char(g_utf8_prev_char(text.data() + text.size())));
}

std::string_view strip(std::string_view text, bool left, bool right) {
  if (right) text = text.substr(0, trailing_whitespace(text));
  if (left) text.remove_prefix(leading_whitespace(text));
  return text;
}

void replace_space_runs(std::string_view text, const std::string &content, BoundedText &out) {
  while (!text.empty()) {
    const size_t spaces = std::min(text.find_first_not_of(' '), text.size());
    out += spaces > 1 ? content : text.substr(0, spaces);
    text.remove_prefix(spaces);
    const size_t word = std::min(text.find(' '), text.size());
    out += text.substr(0, word);
    text.remove_prefix(word);
  }
}

std::string replace_spaces(std::string_view text) {
  std::string out;
  for (char c : text) c == ' ' ? out += metaspace : out += c;
  return out;
}

// ---- The steps after the normalizers ----

/** Metaspace: marks the start of the text and every space, and encodes from mark to mark. */
void encode_marked(std::string_view text, const Unigram &model, const Sink &sink) {
  std::string marked = replace_spaces(text);
  if (!marked.starts_with(metaspace)) marked.insert(0, metaspace);
  for (size_t start = 0, end; start < marked.size() && !sink.is_full(); start = end) {
    end = std::min(marked.find(metaspace, start + metaspace.size()), marked.size());
    model.encode(std::string_view(marked).substr(start, end - start), sink.ids, sink.context);
  }
}

/** WhitespaceSplit, then Metaspace for each word. */
void encode_words(std::string_view text, const Unigram &model, const Sink &sink) {
  for (text.remove_prefix(leading_whitespace(text)); !text.empty() && !sink.is_full();
       text.remove_prefix(leading_whitespace(text))) {
    size_t end = 0;
    while (end < text.size() && !is_whitespace(g_utf8_get_char(&text[end])))
      end = g_utf8_next_char(&text[end]) - text.data();
    encode_marked(text.substr(0, end), model, sink);
    text.remove_prefix(end);
  }
}

// ---- Added tokens ----

/** Pieces of text that become one id wherever they stand, as "</s>". */
class AddedTokens {
 public:
  struct Token {
    std::string content;
    int32_t id;
    bool lstrip, rstrip;  // takes the whitespace on its left, right
    bool single_word;     // not within a word
  };

  explicit AddedTokens(std::vector<Token> tokens) : tokens_(std::move(tokens)), table_(entries(tokens_)) {}

  /** As tokenizers' AddedVocabulary does it: the ids go to the sink, what lies between to `plain(text)`. */
  template <typename Plain>
  void split(std::string_view text, const Sink &sink, Plain plain) const {
    size_t done = 0;
    for (size_t at = 0; at < text.size() && !sink.is_full();) {
      const Token *token = longest_at(text.substr(at));
      const size_t start = at;
      at += token ? token->content.size() : 1;
      const std::string_view before = text.substr(0, start), after = text.substr(at);
      if (!token || (token->single_word && (ends_with_word(before) || starts_with_word(after)))) continue;
      const size_t end = token->lstrip ? trailing_whitespace(before) : start;
      if (done < end) plain(text.substr(done, end - done));
      sink.ids.push_back(token->id);
      done = token->rstrip ? at + leading_whitespace(after) : at;
    }
    if (done < text.size()) plain(text.substr(done));
  }

 private:
  static PrefixTable entries(const std::vector<Token> &tokens) {
    std::vector<PrefixTable::Entry> entries;
    for (const Token &token : tokens)
      entries.push_back({token.content, static_cast<int32_t>(entries.size())});
    return PrefixTable(std::move(entries));
  }

  const Token *longest_at(std::string_view text) const {
    const Token *longest = nullptr;
    table_.visit_prefixes(text, [&](size_t, int32_t index) { longest = &tokens_[index]; });
    return longest;
  }

  std::vector<Token> tokens_;
  PrefixTable table_;  // the ids are indices of tokens_
};

// ---- tokenizer.json ----

int32_t read_id(const Json &value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<int32_t>::max())
    throw invalid("it has an id that is not one");
  return value.get<int32_t>();
}

Normalizer read_normalizer(const Json &node) {
  const std::string type = node.at("type");
  if (type == "Precompiled") {
    gsize size = 0;
    const std::string encoded = node.at("precompiled_charsmap");
    const std::unique_ptr<guchar, void (*)(gpointer)> blob(g_base64_decode(encoded.c_str(), &size), g_free);
    const std::string_view bytes(reinterpret_cast<const char *>(blob.get()), size);
    return [charsmap = Charsmap(bytes)](std::string_view text, BoundedText &out) {
      charsmap.normalize(text, out);
    };
  }
  if (type == "Strip") {
    const bool left = node.at("strip_left"), right = node.at("strip_right");
    return [left, right](std::string_view text, BoundedText &out) { out += strip(text, left, right); };
  }
  if (type == "Replace" && node.at("pattern").value("Regex", "") == " {2,}")
    return [content = node.at("content").get<std::string>()](std::string_view text, BoundedText &out) {
      replace_space_runs(text, content, out);
    };
  throw invalid("it has a normalizer that no T5 tokenizer has: " + printable(type));
}

std::vector<Normalizer> read_normalizers(const Json &node) {
  if (node.is_null()) return {};
  if (node.at("type") != "Sequence") return {read_normalizer(node)};
  if (node.at("normalizers").size() > most_normalizers)
    throw invalid("it has more than " + std::to_string(most_normalizers) + " normalizers");
  std::vector<Normalizer> normalizers;
  for (const Json &each : node.at("normalizers")) normalizers.push_back(read_normalizer(each));
  return normalizers;
}

void check_metaspace(const Json &node) {
  const bool always =
      node.value("prepend_scheme", node.value("add_prefix_space", true) ? "always" : "never") == "always";
  if (node.at("type") != "Metaspace" || node.at("replacement") != metaspace || !always ||
      !node.value("split", true))
    throw invalid("it has a pre_tokenizer that no T5 tokenizer has");
}

/** Whether it splits at whitespace before it marks spaces. */
bool read_whitespace_split(const Json &node) {
  if (node.at("type") != "Sequence") {
    check_metaspace(node);
    return false;
  }
  const Json &parts = node.at("pretokenizers");
  if (parts.size() != 2 || parts.at(0).at("type") != "WhitespaceSplit")
    throw invalid("it has a pre_tokenizer that no T5 tokenizer has");
  check_metaspace(parts.at(1));
  return true;
}

Unigram read_model(const Json &node) {
  if (node.at("type") != "Unigram") throw invalid("its model is not Unigram");
  std::vector<Unigram::Piece> pieces;
  for (const Json &piece : node.at("vocab")) pieces.push_back({piece.at(0), piece.at(1)});
  return {pieces, static_cast<size_t>(read_id(node.at("unk_id"))), node.value("byte_fallback", false)};
}

std::string normalize(const std::vector<Normalizer> &normalizers, std::string_view text) {
  std::string normalized(text);
  for (const Normalizer &normalizer : normalizers) {
    BoundedText out(most_growth * text.size() + growth_of_any);
    normalizer(normalized, out);
    normalized = std::move(out).take();
  }
  return normalized;
}

/** Those that are looked for in the text as it is, or those that are in the normalized text. A token of the
 * vocabulary has its id there, whatever stands here. */
AddedTokens read_added_tokens(const Json &node, const Unigram &model,
                              const std::vector<Normalizer> &normalizers, bool normalized) {
  std::vector<AddedTokens::Token> tokens;
  for (const Json &token : node) {
    const std::string content = token.at("content");
    const int32_t own_id = read_id(token.at("id")), id = model.id(content);
    if (token.at("normalized").get<bool>() == normalized)
      tokens.push_back({normalized ? normalize(normalizers, content) : content, id < 0 ? own_id : id,
                        token.at("lstrip"), token.at("rstrip"), token.at("single_word")});
  }
  return AddedTokens(std::move(tokens));
}

/** T5's template is the text, then the end token. */
int32_t read_eos_id(const Json &node) {
  const Json &single = node.at("single");
  if (node.at("type") != "TemplateProcessing" || single.size() != 2 || !single.at(0).contains("Sequence"))
    throw invalid("its post_processor is not T5's");
  const std::string eos = single.at(1).at("SpecialToken").at("id");
  return read_id(node.at("special_tokens").at(eos).at("ids").at(0));
}

/** Cutting or filling up on the left is not done here. */
void require_right(const Json &config, const char *key) {
  if (config.value(key, "right") != "right") throw invalid("its " + std::string(key) + " is not \"right\"");
}

std::string read_pad_token(const Json &config) {
  require_right(config, "padding_side");
  require_right(config, "truncation_side");
  const Json token = config.value("pad_token", Json("<pad>"));
  return token.is_object() ? token.at("content") : token;
}

/** `call()`, with the path in the message of what is wrong with the file. */
template <typename Call>
auto naming(const std::filesystem::path &path, Call call) {
  try {
    return call();
  } catch (const Json::exception &error) {
    throw invalid(path.string() + " is corrupt: " + printable(error.what()));
  } catch (const Error &error) {
    throw error.kind() == WAN_INVALID ? invalid(path.string() + " cannot be used: " + error.what()) : error;
  }
}

}  // namespace

struct Tokenizer::Definition {
  Definition(std::filesystem::path json_path, const Json &file)
      : path(std::move(json_path)),
        normalizers(read_normalizers(file.at("normalizer"))),
        whitespace_split(read_whitespace_split(file.at("pre_tokenizer"))),
        model(read_model(file.at("model"))),
        added_tokens(read_added_tokens(file.at("added_tokens"), model, normalizers, false)),
        normalized_tokens(read_added_tokens(file.at("added_tokens"), model, normalizers, true)),
        eos_id(read_eos_id(file.at("post_processor"))) {}

  void encode_plain(std::string_view text, const Sink &sink) const;
  void encode(std::string_view text, const Sink &sink) const;

  std::filesystem::path path;
  std::vector<Normalizer> normalizers;
  bool whitespace_split;
  Unigram model;
  AddedTokens added_tokens, normalized_tokens;
  int32_t eos_id;
  int32_t pad_id = 0;
};

/** A text without added tokens. */
void Tokenizer::Definition::encode_plain(std::string_view text, const Sink &sink) const {
  if (text.empty() || sink.is_full()) return;
  normalized_tokens.split(normalize(normalizers, text), sink, [&](std::string_view part) {
    whitespace_split ? encode_words(part, model, sink) : encode_marked(part, model, sink);
  });
}

void Tokenizer::Definition::encode(std::string_view text, const Sink &sink) const {
  added_tokens.split(text, sink, [&](std::string_view part) { encode_plain(part, sink); });
}

Tokenizer::Tokenizer(const std::filesystem::path &directory) {
  const std::filesystem::path path = directory / "tokenizer.json",
                              config_path = directory / "tokenizer_config.json";
  const Json file = read_json(path, most_file_bytes);
  const Json config = is_there(config_path) ? read_json(config_path) : Json::object();
  auto definition = naming(path, [&] { return std::make_unique<Definition>(path, file); });
  definition->pad_id = naming(config_path, [&] {
    const std::string pad_token = read_pad_token(config);
    if (const int32_t id = definition->model.id(pad_token); id >= 0) return id;
    for (const Json &token : file.at("added_tokens"))
      if (token.at("content") == pad_token) return read_id(token.at("id"));
    throw invalid("its pad_token is not in the vocabulary");
  });
  definition_ = std::move(definition);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;

std::vector<int32_t> Tokenizer::operator()(std::string_view cleaned_prompt, size_t max_length,
                                           const RunContext &context) const {
  if (max_length == 0) throw invalid("max_length must leave room for the end token");
  if (!cleaned_prompt.empty() && !g_utf8_validate_len(cleaned_prompt.data(), cleaned_prompt.size(), nullptr))
    throw invalid("The prompt is not valid UTF-8");
  Ids ids;
  naming(definition_->path, [&] { definition_->encode(cleaned_prompt, {ids, max_length - 1, context}); });
  ids.resize(std::min(ids.size(), max_length - 1));
  ids.push_back(definition_->eos_id);
  return ids;
}

int32_t Tokenizer::pad_id() const {
  return definition_->pad_id;
}

}  // namespace wan
