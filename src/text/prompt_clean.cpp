// SPDX-License-Identifier: LGPL-2.1-or-later
#include "text/prompt_clean.h"

#include <glib.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>

#include "error.h"
#include "text/html_entities.h"

namespace wan {
namespace {

using std::u32string;
using std::u32string_view;

constexpr char32_t replacement_character = 0xFFFD;

template <typename T>
std::unique_ptr<T, decltype(&g_free)> owned(T *memory) {
  return {memory, g_free};
}

u32string from_utf8(std::string_view utf8, const std::string &name = "prompt") {
  u32string text;
  for (const char *at = utf8.data(), *end = at + utf8.size(); at < end; at = g_utf8_next_char(at)) {
    // GLib takes a NUL for the end of the text.
    const gunichar c = *at == '\0' ? 0 : g_utf8_get_char_validated(at, end - at);
    if (c > 0x10FFFF)
      throw invalid("The " + name + " is not valid UTF-8: bad byte at offset " +
                    std::to_string(at - utf8.data()));
    text += c;
  }
  return text;
}

std::string to_utf8(u32string_view text) {
  glong bytes = 0;
  auto utf8 = owned(
      g_ucs4_to_utf8(reinterpret_cast<const gunichar *>(text.data()), text.size(), nullptr, &bytes, nullptr));
  return {utf8.get(), static_cast<size_t>(bytes)};
}

u32string nfc(u32string_view text) {
  const std::string utf8 = to_utf8(text);
  return from_utf8(owned(g_utf8_normalize(utf8.data(), utf8.size(), G_NORMALIZE_NFC)).get());
}

/** `replace(c, out)` for every character of the text. */
template <typename Replace>
u32string translate(u32string_view text, Replace replace) {
  u32string out;
  out.reserve(text.size());
  for (char32_t c : text) replace(c, out);
  return out;
}

bool between(char32_t c, char32_t first, char32_t last) {
  return first <= c && c <= last;
}

/** Length of the longest prefix, of at most `limit` characters, that has nothing but what `is_part` accepts.
 */
template <typename Predicate>
size_t span(u32string_view text, size_t limit, Predicate is_part) {
  const auto end = text.begin() + std::min(limit, text.size());
  return std::find_if_not(text.begin(), end, is_part) - text.begin();
}

// ---- HTML ----

bool is_digit(char32_t c) {
  return between(c, '0', '9');
}
bool is_alphanumeric(char32_t c) {
  return c < 0x80 && g_ascii_isalnum(c);
}
bool is_hex_digit(char32_t c) {
  return c < 0x80 && g_ascii_isxdigit(c);
}

template <size_t N>
std::optional<u32string_view> find(const HtmlEntity (&entities)[N], u32string_view name) {
  auto entity = std::ranges::lower_bound(entities, name, {}, &HtmlEntity::name);
  if (entity == std::end(entities) || entity->name != name) return std::nullopt;
  return entity->text;
}

/** What a reference starts with: how many characters (0: it is none) and what they stand for. */
struct Reference {
  size_t length = 0;
  u32string text;
};

u32string numeric_reference(char32_t code) {
  if (code == 0 || between(code, 0xD800, 0xDFFF) || code > 0x10FFFF) return {replacement_character};
  if (between(code, 0x80, 0x9F)) return {windows_1252[code - 0x80]};
  const bool control = between(code, 0x01, 0x08) || code == 0x0B || between(code, 0x0E, 0x1F) || code == 0x7F;
  const bool noncharacter = between(code, 0xFDD0, 0xFDEF) || (code & 0xFFFE) == 0xFFFE;
  if (control || noncharacter) return {};
  return {code};
}

/** A number after "&#", with or without a semicolon. */
Reference parse_numeric(u32string_view text) {
  const bool hex = text.size() > 2 && (text[2] == 'x' || text[2] == 'X');
  const size_t first = hex ? 3 : 2;
  if (first > text.size()) return {};
  size_t end = first + span(text.substr(first), text.npos, hex ? is_hex_digit : is_digit);
  if (end == first) return {};
  char32_t code = 0;
  for (char32_t digit : text.substr(first, end - first))
    code = std::min<char32_t>(code * (hex ? 16 : 10) + g_ascii_xdigit_value(digit), 0x110000);
  if (end < text.size() && text[end] == ';') ++end;
  return {end, numeric_reference(code)};
}

/** A name after "&"; without a semicolon, the longest name that HTML allows to have none. */
Reference parse_named(u32string_view text) {
  static constexpr size_t longest_name = 32;
  const u32string_view after = text.substr(1);
  size_t length =
      span(after, longest_name, [](char32_t c) { return U"\t\n\f <&#;"sv.find(c) == u32string_view::npos; });
  if (length == 0) return {};
  if (length < after.size() && after[length] == ';') ++length;
  for (; length > 1; --length)
    if (auto found = find(html5_entities, after.substr(0, length))) return {1 + length, u32string(*found)};
  return {};
}

/** A reference as Python's html.unescape reads it. */
Reference parse_reference(u32string_view text) {
  return text.substr(1).starts_with('#') ? parse_numeric(text) : parse_named(text);
}

/** A reference as ftfy reads it: it must end in a semicolon, and some names may be in capitals. */
Reference parse_strict_reference(u32string_view text) {
  const bool numeric = text.substr(1).starts_with('#');
  const size_t first = numeric ? 2 : 1;
  const size_t length = span(text.substr(std::min(first, text.size())), 24, is_alphanumeric);
  if (length == 0 || !text.substr(first + length).starts_with(';')) return {};
  const u32string_view whole = text.substr(0, first + length + 1);
  if (numeric) {
    // A part of it, or a semicolon as the result, would leave ftfy in doubt about the semicolon.
    Reference reference = parse_numeric(whole);
    return reference.length == whole.size() && reference.text != U";" ? reference : Reference{};
  }
  const u32string_view name = whole.substr(1);
  auto found = find(html5_entities, name);
  if (!found) found = find(uppercase_entities, name);
  return found ? Reference{whole.size(), u32string(*found)} : Reference{};
}

template <typename Parse>
u32string unescape(u32string_view text, Parse parse) {
  u32string out;
  while (!text.empty()) {
    const Reference reference = text[0] == '&' ? parse(text) : Reference{};
    if (reference.length == 0) out += text[0];
    out += reference.text;
    text.remove_prefix(std::max<size_t>(reference.length, 1));
  }
  return out;
}

u32string fix_characters(u32string_view text);
u32string remove_control_characters(u32string_view text);

/** Reads ftfy's references until there are none, those too that others make: "&amp;amp;lt;" is "<". What a
 * later step makes "&", ";" or nothing of is so at once. */
u32string unescape_wholly(u32string_view text) {
  static constexpr size_t longest_reference = sizeof "&#;" - 1 + 24;
  u32string out;
  for (const char32_t c : text) {
    out += c;
    // Only a semicolon completes one, and what becomes of that may be a semicolon again.
    while (out.ends_with(U';')) {
      u32string_view end = u32string_view(out).substr(out.size() - std::min(out.size(), longest_reference));
      end.remove_prefix(std::min(end.rfind(U'&'), end.size()));
      const Reference reference = end.empty() ? Reference{} : parse_strict_reference(end);
      if (reference.length == 0 || reference.length != end.size()) break;
      out.replace(out.size() - reference.length, reference.length,
                  nfc(remove_control_characters(fix_characters(reference.text))));
    }
  }
  return out;
}

u32string html_unescape(u32string_view text) {
  return unescape(text, parse_reference);
}

// ---- ftfy ----

/** The ligatures and digraphs of Latin letters that ftfy takes apart; not those that languages use, as æ. */
bool is_latin_ligature(char32_t c) {
  return c == 0x132 || c == 0x133 || c == 0x149 || between(c, 0x1C4, 0x1CC) || between(c, 0x1F1, 0x1F3) ||
         between(c, 0xFB00, 0xFB06);
}

bool is_wide_or_narrow(char32_t c) {
  return c == 0x3000 || between(c, 0xFF01, 0xFFEF);
}

void append_compatibility_form(char32_t c, u32string &out) {
  std::array<gunichar, 18> form;  // no character has a longer decomposition
  const size_t length = g_unichar_fully_decompose(c, TRUE, form.data(), form.size());
  out.append(form.begin(), form.begin() + length);
}

bool is_control(char32_t c) {
  return c <= 0x08 || c == 0x0B || between(c, 0x0E, 0x1F) || c == 0x7F || between(c, 0x206A, 0x206F) ||
         c == 0xFEFF || between(c, 0xFFF9, 0xFFFC);
}

u32string fix_characters(u32string_view text) {
  return translate(text, [](char32_t c, u32string &out) {
    if (between(c, 0x80, 0x9F)) c = windows_1252[c - 0x80];
    if (c == 0xFB05)  // LATIN SMALL LIGATURE LONG S T, of which Unicode's decomposition makes a plain s
      out += U"\u017Ft";
    else if (is_latin_ligature(c) || is_wide_or_narrow(c))
      append_compatibility_form(c, out);
    else
      out += c;
  });
}

u32string uncurl_quotes(u32string_view text) {
  return translate(text, [](char32_t c, u32string &out) {
    if (c == 0x02BC || between(c, 0x2018, 0x201B)) c = '\'';
    if (between(c, 0x201C, 0x201F)) c = '"';
    out += c;
  });
}

u32string fix_line_breaks(u32string_view text) {
  return translate(text, [after_cr = false](char32_t c, u32string &out) mutable {
    const bool second_half = after_cr && c == '\n';
    after_cr = c == '\r';
    if (second_half) return;
    out += c == '\r' || c == 0x2028 || c == 0x2029 ? '\n' : c;
  });
}

/** Length of the ANSI escape sequence (colour, cursor) that the text starts with. */
size_t terminal_escape(u32string_view text) {
  if (!text.starts_with(U"\033[")) return 0;
  const size_t length =
      2 + span(text.substr(2), text.npos, [](char32_t c) { return c == ';' || g_unichar_isdigit(c); });
  return length < text.size() && text[length] < 0x80 && g_ascii_isalpha(text[length]) ? length + 1 : 0;
}

u32string remove_terminal_escapes(u32string_view text) {
  u32string out;
  while (!text.empty()) {
    const size_t length = terminal_escape(text);
    if (length == 0) out += text[0];
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

u32string remove_control_characters(u32string_view text) {
  return translate(text, [](char32_t c, u32string &out) {
    if (!is_control(c)) out += c;
  });
}

/** One line. A step can make work for an earlier one, so they are repeated until nothing changes.
 *
 * Escape sequences are gone after the first time. From then on nothing that a reference makes depends on when
 * it is read, but for the number of line breaks in a row, and all can be read at once. */
u32string fix_line(u32string line, bool unescape_html, const RunContext &context) {
  for (bool first = true;; first = false) {
    context.check();
    u32string fixed = line;
    if (unescape_html) fixed = first ? unescape(line, parse_strict_reference) : unescape_wholly(line);
    fixed = fix_line_breaks(uncurl_quotes(fix_characters(fixed)));
    fixed = nfc(remove_control_characters(remove_terminal_escapes(fixed)));
    if (fixed == line) return fixed;
    line = std::move(fixed);
  }
}

u32string fix_text(u32string_view text, const RunContext &context) {
  u32string out;
  bool unescape_html = true;
  while (!text.empty()) {
    const size_t length = std::min(text.find('\n'), text.size() - 1) + 1;
    const u32string_view line = text.substr(0, length);
    // From a literal "<" on, ftfy takes the text for HTML in which references are meant as they stand.
    unescape_html = unescape_html && line.find(U'<') == line.npos;
    out += fix_line(u32string(line), unescape_html, context);
    text.remove_prefix(length);
  }
  return out;
}

// ----

u32string collapse_whitespace(u32string_view text) {
  return translate(text, [pending = false](char32_t c, u32string &out) mutable {
    if (g_unichar_isspace(c)) {
      pending = !out.empty();
      return;
    }
    if (pending) out += ' ';
    pending = false;
    out += c;
  });
}

}  // namespace

void require_prompt(std::string_view utf8, const std::string &name) {
  if (utf8.size() > longest_prompt)
    throw invalid("The " + name + " is too long: it has " + std::to_string(utf8.size()) +
                  " bytes, and may have " + std::to_string(longest_prompt));
  from_utf8(utf8, name);
}

std::string prompt_clean(std::string_view utf8, const RunContext &context) {
  require_prompt(utf8);
  const u32string fixed = fix_text(from_utf8(utf8), context);
  return to_utf8(collapse_whitespace(html_unescape(html_unescape(fixed))));
}

}  // namespace wan
