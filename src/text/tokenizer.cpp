#include "text/tokenizer.h"

#include <glib.h>

#include <fstream>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "error.h"
#include "text/charsmap.h"
#include "text/unigram.h"

namespace wan {
namespace {

using json = nlohmann::json;
using Ids = std::vector<int32_t>;
using Normalizer = std::function<std::string(std::string_view)>;

/** Stands for the space in front of a word. */
constexpr std::string_view metaspace = "▁";

/** A piece of text that becomes one id wherever it stands, as "</s>". */
struct AddedToken {
  std::string content;
  int32_t id;
  bool lstrip, rstrip;  // takes the whitespace on its left, right
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

std::string strip(std::string_view text, bool left, bool right) {
  if (right) text = text.substr(0, trailing_whitespace(text));
  if (left) text.remove_prefix(leading_whitespace(text));
  return std::string(text);
}

std::string replace_space_runs(std::string_view text, const std::string &content) {
  std::string out;
  while (!text.empty()) {
    const size_t spaces = std::min(text.find_first_not_of(' '), text.size());
    out += spaces > 1 ? content : std::string(spaces, ' ');
    text.remove_prefix(spaces);
    const size_t word = std::min(text.find(' '), text.size());
    out += text.substr(0, word);
    text.remove_prefix(word);
  }
  return out;
}

std::string replace_spaces(std::string_view text) {
  std::string out;
  for (char c : text) c == ' ' ? out += metaspace : out += c;
  return out;
}

// ---- The steps after the normalizers ----

/** Metaspace: marks the start of the text and every space, and encodes from mark to mark. */
void encode_marked(std::string_view text, const Unigram &model, Ids &ids) {
  std::string marked = replace_spaces(text);
  if (!marked.starts_with(metaspace)) marked.insert(0, metaspace);
  for (size_t start = 0, end; start < marked.size(); start = end) {
    end = std::min(marked.find(metaspace, start + metaspace.size()), marked.size());
    model.encode(std::string_view(marked).substr(start, end - start), ids);
  }
}

/** WhitespaceSplit, then Metaspace for each word. */
void encode_words(std::string_view text, const Unigram &model, Ids &ids) {
  for (text.remove_prefix(leading_whitespace(text)); !text.empty();
       text.remove_prefix(leading_whitespace(text))) {
    size_t end = 0;
    while (end < text.size() && !is_whitespace(g_utf8_get_char(&text[end])))
      end = g_utf8_next_char(&text[end]) - text.data();
    encode_marked(text.substr(0, end), model, ids);
    text.remove_prefix(end);
  }
}

// ---- tokenizer.json ----

int32_t read_id(const json &value) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > std::numeric_limits<int32_t>::max())
    throw invalid("it has an id that is not one");
  return value.get<int32_t>();
}

Normalizer read_normalizer(const json &node) {
  const std::string type = node.at("type");
  if (type == "Precompiled") {
    gsize size = 0;
    const std::string encoded = node.at("precompiled_charsmap");
    const std::unique_ptr<guchar, void (*)(gpointer)> blob(g_base64_decode(encoded.c_str(), &size), g_free);
    const std::string_view bytes(reinterpret_cast<const char *>(blob.get()), size);
    return [charsmap = Charsmap(bytes)](std::string_view text) { return charsmap.normalize(text); };
  }
  if (type == "Strip") {
    const bool left = node.at("strip_left"), right = node.at("strip_right");
    return [left, right](std::string_view text) { return strip(text, left, right); };
  }
  if (type == "Replace" && node.at("pattern").value("Regex", "") == " {2,}")
    return [content = node.at("content").get<std::string>()](std::string_view text) {
      return replace_space_runs(text, content);
    };
  throw invalid("it has a normalizer that no T5 tokenizer has: " + type);
}

std::vector<Normalizer> read_normalizers(const json &node) {
  if (node.is_null()) return {};
  if (node.at("type") != "Sequence") return {read_normalizer(node)};
  std::vector<Normalizer> normalizers;
  for (const json &each : node.at("normalizers")) normalizers.push_back(read_normalizer(each));
  return normalizers;
}

void check_metaspace(const json &node) {
  const bool always =
      node.value("prepend_scheme", node.value("add_prefix_space", true) ? "always" : "never") == "always";
  if (node.at("type") != "Metaspace" || node.at("replacement") != metaspace || !always ||
      !node.value("split", true))
    throw invalid("it has a pre_tokenizer that no T5 tokenizer has");
}

/** Whether it splits at whitespace before it marks spaces. */
bool read_whitespace_split(const json &node) {
  if (node.at("type") != "Sequence") {
    check_metaspace(node);
    return false;
  }
  const json &parts = node.at("pretokenizers");
  if (parts.size() != 2 || parts.at(0).at("type") != "WhitespaceSplit")
    throw invalid("it has a pre_tokenizer that no T5 tokenizer has");
  check_metaspace(parts.at(1));
  return true;
}

Unigram read_model(const json &node) {
  if (node.at("type") != "Unigram") throw invalid("its model is not Unigram");
  std::vector<Unigram::Piece> pieces;
  for (const json &piece : node.at("vocab")) pieces.push_back({piece.at(0), piece.at(1)});
  return {pieces, static_cast<size_t>(read_id(node.at("unk_id"))), node.value("byte_fallback", false)};
}

std::vector<AddedToken> read_added_tokens(const json &node) {
  std::vector<AddedToken> tokens;
  for (const json &token : node)
    if (std::string content = token.at("content"); !content.empty())
      tokens.push_back({content, read_id(token.at("id")), token.at("lstrip"), token.at("rstrip")});
  return tokens;
}

/** T5's template is the text, then the end token. */
int32_t read_eos_id(const json &node) {
  const json &single = node.at("single");
  if (node.at("type") != "TemplateProcessing" || single.size() != 2 || !single.at(0).contains("Sequence"))
    throw invalid("its post_processor is not T5's");
  const std::string eos = single.at(1).at("SpecialToken").at("id");
  return read_id(node.at("special_tokens").at(eos).at("ids").at(0));
}

json parse_file(const std::filesystem::path &path) {
  if (!std::filesystem::is_regular_file(path)) throw not_found("There is no file " + path.string());
  std::ifstream file(path, std::ios::binary);
  return json::parse(file);
}

std::string read_pad_token(const std::filesystem::path &path) {
  if (!std::filesystem::exists(path)) return "<pad>";
  const json config = parse_file(path);
  const json token = config.value("pad_token", json("<pad>"));
  return token.is_object() ? token.at("content") : token;
}

/** `read(path)`, with the path in the message of what it throws. */
template <typename Read>
auto naming(const std::filesystem::path &path, Read read) {
  try {
    return read(path);
  } catch (const json::exception &error) {
    throw invalid(path.string() + " is corrupt: " + error.what());
  } catch (const Error &error) {
    throw error.kind() == WAN_NOT_FOUND ? error
                                        : invalid(path.string() + " cannot be used: " + error.what());
  }
}

}  // namespace

struct Tokenizer::Definition {
  explicit Definition(const json &file)
      : added_tokens(read_added_tokens(file.at("added_tokens"))),
        normalizers(read_normalizers(file.at("normalizer"))),
        whitespace_split(read_whitespace_split(file.at("pre_tokenizer"))),
        model(read_model(file.at("model"))),
        eos_id(read_eos_id(file.at("post_processor"))) {}

  const AddedToken *added_token_at(std::string_view text) const;
  std::string normalize(std::string_view text) const;
  void encode_plain(std::string_view text, Ids &ids) const;
  void encode(std::string_view text, Ids &ids) const;
  int32_t token_id(std::string_view token) const;

  std::vector<AddedToken> added_tokens;
  std::vector<Normalizer> normalizers;
  bool whitespace_split;
  Unigram model;
  int32_t eos_id;
  int32_t pad_id = 0;
};

/** The longest one that the text starts with, or null. */
const AddedToken *Tokenizer::Definition::added_token_at(std::string_view text) const {
  const AddedToken *longest = nullptr;
  for (const AddedToken &token : added_tokens)
    if (text.starts_with(token.content) && (!longest || token.content.size() > longest->content.size()))
      longest = &token;
  return longest;
}

std::string Tokenizer::Definition::normalize(std::string_view text) const {
  std::string normalized(text);
  for (const Normalizer &normalizer : normalizers) normalized = normalizer(normalized);
  return normalized;
}

/** A text without added tokens. */
void Tokenizer::Definition::encode_plain(std::string_view text, Ids &ids) const {
  const std::string normalized = normalize(text);
  if (normalized.empty()) return;
  whitespace_split ? encode_words(normalized, model, ids) : encode_marked(normalized, model, ids);
}

void Tokenizer::Definition::encode(std::string_view text, Ids &ids) const {
  size_t plain = 0;  // where the text without added tokens began
  for (size_t at = 0; at < text.size();) {
    const AddedToken *token = added_token_at(text.substr(at));
    if (!token) {
      ++at;
      continue;
    }
    std::string_view before = text.substr(plain, at - plain);
    if (token->lstrip) before = before.substr(0, trailing_whitespace(before));
    encode_plain(before, ids);
    ids.push_back(token->id);
    at += token->content.size();
    plain = token->rstrip ? at + leading_whitespace(text.substr(at)) : at;
    at = plain;
  }
  encode_plain(text.substr(plain), ids);
}

int32_t Tokenizer::Definition::token_id(std::string_view token) const {
  for (const AddedToken &added : added_tokens)
    if (added.content == token) return added.id;
  const int32_t id = model.id(token);
  if (id < 0) throw invalid("its pad_token is not in the vocabulary");
  return id;
}

Tokenizer::Tokenizer(const std::filesystem::path &directory) {
  auto definition = naming(directory / "tokenizer.json",
                           [](const auto &path) { return std::make_unique<Definition>(parse_file(path)); });
  definition->pad_id = naming(directory / "tokenizer_config.json", [&definition](const auto &path) {
    return definition->token_id(read_pad_token(path));
  });
  definition_ = std::move(definition);
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;

std::vector<int32_t> Tokenizer::operator()(std::string_view cleaned_prompt, size_t max_length) const {
  if (max_length == 0) throw invalid("max_length must leave room for the end token");
  if (!cleaned_prompt.empty() && !g_utf8_validate_len(cleaned_prompt.data(), cleaned_prompt.size(), nullptr))
    throw invalid("The prompt is not valid UTF-8");
  Ids ids;
  definition_->encode(cleaned_prompt, ids);
  ids.resize(std::min(ids.size(), max_length - 1));
  ids.push_back(definition_->eos_id);
  return ids;
}

int32_t Tokenizer::pad_id() const {
  return definition_->pad_id;
}

}  // namespace wan
