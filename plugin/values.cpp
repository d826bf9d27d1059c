// SPDX-License-Identifier: LGPL-2.1-or-later
#include "values.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace wan {
namespace {

bool convert_array(const GValue *from, GParamSpec *element, GValue *to) {
  for (guint i = 0; i < gst_value_array_get_size(from); ++i) {
    GValue item = G_VALUE_INIT;
    if (!convert_value(gst_value_array_get_value(from, i), element, &item)) return false;
    gst_value_array_append_and_take_value(to, &item);
  }
  return true;
}

// Converts a number, enumerated value or boxed one. False if it would be another number then.
bool convert_exactly(const GValue *from, GValue *to) {
  if (G_VALUE_TYPE(from) == G_VALUE_TYPE(to)) {
    g_value_copy(from, to);
    return true;
  }
  if (G_VALUE_HOLDS_BOOLEAN(from) || G_VALUE_HOLDS_STRING(from) || !g_value_transform(from, to)) return false;
  Value back(G_VALUE_TYPE(from));
  return g_value_transform(to, back.get()) && gst_value_compare(from, back.get()) == GST_VALUE_EQUAL;
}

// A property of 64 bits with a sign holds the bits of an unsigned number, and -1 stands for none.
bool is_bits(const GParamSpec *pspec) {
  return pspec->value_type == G_TYPE_INT64;
}

// Text would be taken for the number of these bits, or for one that is cut to them.
bool is_bits_text(const char *text) {
  gchar *end = nullptr;
  errno = 0;
  const guint64 bits = g_ascii_strtoull(text, &end, 0);
  return errno == 0 && *end == '\0' && (bits != G_MAXUINT64 || strchr(text, '-'));
}

// GStreamer takes the list within for one of the elements that the property describes, and may crash on it.
bool holds_list_in_list(std::string_view text) {
  int lists = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\')
      ++i;
    else if (text[i] == '"')
      quoted = !quoted;
    else if (!quoted && (text[i] == '<' || text[i] == '{'))
      ++lists;
  }
  return lists > 1;
}

bool convert_text(const char *text, GParamSpec *pspec, GValue *to) {
  if (!text || (is_bits(pspec) && !is_bits_text(text))) return false;
  if (GST_IS_PARAM_SPEC_ARRAY_LIST(pspec) && holds_list_in_list(text)) return false;
  return gst_value_deserialize_with_pspec(to, text, pspec);
}

bool convert(const GValue *from, GParamSpec *pspec, GValue *to) {
  if (GST_VALUE_HOLDS_ARRAY(from) && GST_IS_PARAM_SPEC_ARRAY_LIST(pspec))
    return convert_array(from, GST_PARAM_SPEC_ARRAY_LIST(pspec)->element_spec, to);
  if (G_VALUE_HOLDS_STRING(from) && pspec->value_type != G_TYPE_STRING)
    return convert_text(g_value_get_string(from), pspec, to);
  const bool none = is_bits(pspec) && G_VALUE_HOLDS_UINT64(from) && g_value_get_uint64(from) == G_MAXUINT64;
  return !none && convert_exactly(from, to);
}

// As gst-launch-1.0 reads it.
std::string quoted(const std::string &text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += letter;
  }
  return result + '"';
}

std::string serialized(const GValue *value) {
  gchar *text = gst_value_serialize(value);
  const std::string result = text ? text : "";
  g_free(text);
  return result;
}

// A string in the notation of a GValue, with no backslash but before an escaped letter: what is quoted once
// more may not end in one.
std::string escaped(const std::string &text) {
  Value value(G_TYPE_STRING);
  g_value_set_string(value.get(), text.c_str());
  std::string result = serialized(value.get());
  for (size_t at = 0; (at = result.find("\\\\", at)) != std::string::npos; at += 4)
    result.replace(at, 2, "\\134");
  return result;
}

// What could be taken for the notation of something else is put in that notation.
std::string text_literal(const std::string &text) {
  const bool plain = text.find('\\') == std::string::npos && !text.starts_with('"') && text != "NULL";
  return quoted(plain ? text : escaped(text));
}

bool holds_numbers(const GValue *value) {
  return GST_VALUE_HOLDS_ARRAY(value) && gst_value_array_get_size(value) > 0 &&
         G_VALUE_HOLDS_DOUBLE(gst_value_array_get_value(value, 0));
}

std::string list_text(const std::vector<double> &numbers) {
  std::string text;
  for (const double number : numbers) text.append(text.empty() ? "<" : ",").append(text_of(number));
  return text.append(">");
}

}  // namespace

void read_value(const GValue *value, std::string *text) {
  const gchar *characters = g_value_get_string(value);
  *text = characters ? characters : "";
}

void read_value(const GValue *value, int *number) {
  *number = g_value_get_int(value);
}

void read_value(const GValue *value, unsigned *number) {
  *number = g_value_get_uint(value);
}

void read_value(const GValue *value, int64_t *number) {
  *number = g_value_get_int64(value);
}

void read_value(const GValue *value, uint64_t *number) {
  *number = g_value_get_uint64(value);
}

void read_value(const GValue *value, double *number) {
  *number = g_value_get_double(value);
}

void read_value(const GValue *value, std::vector<double> *numbers) {
  numbers->resize(gst_value_array_get_size(value));
  for (size_t i = 0; i < numbers->size(); ++i)
    (*numbers)[i] = g_value_get_double(gst_value_array_get_value(value, guint(i)));
}

void write_value(const std::string &text, GValue *value) {
  g_value_set_string(value, text.c_str());
}

void write_value(int number, GValue *value) {
  g_value_set_int(value, number);
}

void write_value(unsigned number, GValue *value) {
  g_value_set_uint(value, number);
}

void write_value(int64_t number, GValue *value) {
  g_value_set_int64(value, number);
}

void write_value(uint64_t number, GValue *value) {
  g_value_set_uint64(value, number);
}

void write_value(double number, GValue *value) {
  g_value_set_double(value, number);
}

void write_value(const std::vector<double> &numbers, GValue *value) {
  for (const double number : numbers) {
    GValue item = G_VALUE_INIT;
    g_value_init(&item, G_TYPE_DOUBLE);
    g_value_set_double(&item, number);
    gst_value_array_append_and_take_value(value, &item);
  }
}

bool convert_value(const GValue *from, GParamSpec *pspec, GValue *to) {
  g_value_init(to, pspec->value_type);
  if (convert(from, pspec, to) && !g_param_value_validate(pspec, to)) return true;
  g_value_unset(to);
  return false;
}

std::string value_error(const char *name, const GValue *value) {
  gchar *text = g_strdup_value_contents(value);
  const std::string message = std::string(text) + " is not a valid value for " + name + ".";
  g_free(text);
  return message;
}

std::string text_of(double value) {
  std::array<char, 32> text;
  return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
}

std::string launch_text(const GValue *value) {
  if (G_VALUE_HOLDS_INT64(value)) return std::to_string(guint64(g_value_get_int64(value)));  // is_bits()
  if (G_VALUE_HOLDS_DOUBLE(value)) return text_of(g_value_get_double(value));
  if (G_VALUE_HOLDS_STRING(value)) return text_literal(g_value_get_string(value));
  if (!holds_numbers(value)) {
    const std::string text = serialized(value);
    return GST_VALUE_HOLDS_ARRAY(value) ? quoted(text) : text;
  }
  std::vector<double> numbers;
  read_value(value, &numbers);
  return quoted(list_text(numbers));
}

std::string assignment(const char *name, const std::string &text) {
  return std::string(" ") + name + "=" + text;
}

std::string utf8(const std::string &text) {
  gchar *valid = g_utf8_make_valid(text.data(), gssize(text.size()));
  std::string result = valid;
  g_free(valid);
  return result;
}

}  // namespace wan
