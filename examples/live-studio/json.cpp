// SPDX-License-Identifier: LGPL-2.1-or-later
#include "json.h"

#include <array>

namespace studio {
namespace {

using nlohmann::json;

constexpr int kDeepest = 8;
constexpr guint64 kLargestExact = guint64{1}
                                  << 53;  // all integers up to here are doubles, as a page reads them

bool check_depth(int depth, json::parse_event_t, const json &) {
  if (depth > kDeepest) throw BadMessage("The message is nested too deeply.");
  return true;
}

[[noreturn]] void fail(const char *member, const std::string &expected) {
  throw BadMessage(std::string("\"") + member + "\" must be " + expected + ".");
}

std::string plain(double value) {
  std::array<char, G_ASCII_DTOSTR_BUF_SIZE> text;
  return g_ascii_formatd(text.data(), text.size(), "%g", value);
}

std::string text_of(const json *value, const char *member, size_t most) {
  if (!value || !value->is_string()) fail(member, "a text");
  auto text = value->get<std::string>();
  if (text.size() > most) fail(member, "at most " + std::to_string(most) + " bytes long");
  // What takes it further would end it there.
  if (text.find('\0') != text.npos) fail(member, "a text without the character U+0000");
  return text;
}

json value_of(const GValue *value) {
  if (G_VALUE_HOLDS_UINT64(value) && g_value_get_uint64(value) > kLargestExact)
    return std::to_string(g_value_get_uint64(value));
  if (G_VALUE_HOLDS_STRING(value)) return g_value_get_string(value) ? g_value_get_string(value) : "";
  if (G_VALUE_HOLDS_DOUBLE(value)) return g_value_get_double(value);
  if (G_VALUE_HOLDS_BOOLEAN(value)) return g_value_get_boolean(value) != FALSE;
  GValue number = G_VALUE_INIT;
  g_value_init(&number, G_TYPE_INT64);
  return g_value_transform(value, &number) ? json(g_value_get_int64(&number)) : json(nullptr);
}

}  // namespace

Message::Message(const std::string &text) {
  try {
    root_ = json::parse(text, check_depth);
  } catch (const json::exception &) {
    throw BadMessage("The message is no JSON.");
  }
  if (!root_.is_object()) throw BadMessage("The message is no JSON object.");
}

std::string Message::text(const char *member, size_t most) const {
  return text_of(find(member), member, most);
}

std::vector<std::string> Message::texts(const char *member, size_t most) const {
  const json *array = find(member);
  if (!array || !array->is_array()) fail(member, "a list of texts");
  if (array->size() > most) fail(member, "a list of at most " + std::to_string(most));
  std::vector<std::string> texts;
  for (const json &value : *array) texts.push_back(text_of(&value, member, 32));
  return texts;
}

gint64 Message::integer(const char *member, gint64 least, gint64 most) const {
  const json *value = find(member);
  // Those that only an unsigned number holds are left out by the comparison as one.
  const bool is_negative = value && value->is_number_integer() && !value->is_number_unsigned();
  const bool fits =
      value && value->is_number_integer() &&
      (is_negative ? value->get<gint64>() >= least && value->get<gint64>() <= most
                   : most >= 0 && value->get<guint64>() <= guint64(most) && value->get<gint64>() >= least);
  if (!fits) fail(member, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return value->get<gint64>();
}

double Message::number(const char *member, double least, double most) const {
  const json *value = find(member);
  const double number = value && value->is_number() ? value->get<double>() : least - 1;
  if (!(number >= least && number <= most))
    fail(member, "a number from " + plain(least) + " to " + plain(most));
  return number;
}

bool Message::truth(const char *member) const {
  const json *value = find(member);
  if (value && !value->is_boolean()) fail(member, "true or false");
  return value && value->get<bool>();
}

Json &Json::objects(const char *name, const std::vector<Json> &values) {
  json array = json::array();
  for (const Json &value : values) array.push_back(value.object_);
  return set(name, std::move(array));
}

Json &Json::property(const char *name, GObject *object, const char *property) {
  GParamSpec *pspec = g_object_class_find_property(G_OBJECT_GET_CLASS(object), property);
  g_auto(GValue) value = G_VALUE_INIT;
  g_object_get_property(object, property, &value);
  return set(name, g_param_value_defaults(pspec, &value) ? json(nullptr) : value_of(&value));
}

Json &Json::fields(const GstStructure *structure) {
  for (int i = 0; i < gst_structure_n_fields(structure); ++i) {
    const char *name = gst_structure_nth_field_name(structure, guint(i));
    set(name, value_of(gst_structure_get_value(structure, name)));
  }
  return *this;
}

std::string Json::to_string() const {
  return object_.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace studio
