// SPDX-License-Identifier: LGPL-2.1-or-later
#include "json.h"

#include <array>
#include <cmath>
#include <cstring>

namespace studio {
namespace {

constexpr int kDeepest = 8;
constexpr guint64 kLargestExact = guint64{1}
                                  << 53;  // all integers up to here are doubles, as a page reads them

// The parser goes down one call for each level, so a text of brackets alone would overflow the stack.
bool is_too_deep(const std::string &text) {
  int depth = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted && c == '\\')
      ++i;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted && (c == '[' || c == '{') && ++depth > kDeepest)
      return true;
    else if (!quoted && (c == ']' || c == '}'))
      --depth;
  }
  return false;
}

[[noreturn]] void fail(const char *member, const std::string &expected) {
  throw BadMessage(std::string("\"") + member + "\" must be " + expected + ".");
}

std::string plain(double value) {
  std::array<char, G_ASCII_DTOSTR_BUF_SIZE> text;
  return g_ascii_formatd(text.data(), text.size(), "%g", value);
}

std::string text_of(JsonNode *node, const char *member, size_t most) {
  if (!node || json_node_get_value_type(node) != G_TYPE_STRING) fail(member, "a text");
  const std::string text = json_node_get_string(node);
  if (text.size() > most) fail(member, "at most " + std::to_string(most) + " bytes long");
  return text;
}

// json-glib writes a number like 1e-06 as 1e-06.0, which is no JSON: the next number beside it has a point.
double with_point(double value) {
  std::array<char, G_ASCII_DTOSTR_BUF_SIZE> text;
  g_ascii_dtostr(text.data(), text.size(), value);
  const bool exponent_alone = strchr(text.data(), 'e') && !strchr(text.data(), '.');
  return exponent_alone ? with_point(std::nextafter(value, 0)) : value;
}

JsonNode *node_of(const GValue *value) {
  JsonNode *node = json_node_alloc();
  if (G_VALUE_HOLDS_UINT64(value) && g_value_get_uint64(value) > kLargestExact) {
    const std::string text = std::to_string(g_value_get_uint64(value));
    return json_node_init_string(node, text.c_str());
  }
  if (G_VALUE_HOLDS_STRING(value)) return json_node_init_string(node, g_value_get_string(value));
  if (G_VALUE_HOLDS_DOUBLE(value)) return json_node_init_double(node, with_point(g_value_get_double(value)));
  if (G_VALUE_HOLDS_BOOLEAN(value)) return json_node_init_boolean(node, g_value_get_boolean(value));
  GValue number = G_VALUE_INIT;
  g_value_init(&number, G_TYPE_INT64);
  if (!g_value_transform(value, &number)) return json_node_init_null(node);
  return json_node_init_int(node, g_value_get_int64(&number));
}

}  // namespace

Message::Message(const std::string &text) {
  if (is_too_deep(text)) throw BadMessage("The message is nested too deeply.");
  g_autoptr(GError) error = nullptr;
  root_ = json_from_string(text.c_str(), &error);
  if (root_ && JSON_NODE_HOLDS_OBJECT(root_)) return;
  g_clear_pointer(&root_, json_node_unref);
  throw BadMessage("The message is no JSON object.");
}

JsonNode *Message::find(const char *member) const {
  return json_object_get_member(json_node_get_object(root_), member);
}

std::string Message::text(const char *member, size_t most) const {
  return text_of(find(member), member, most);
}

std::vector<std::string> Message::texts(const char *member, size_t most) const {
  JsonNode *node = find(member);
  if (!node || !JSON_NODE_HOLDS_ARRAY(node)) fail(member, "a list of texts");
  JsonArray *array = json_node_get_array(node);
  if (json_array_get_length(array) > most) fail(member, "a list of at most " + std::to_string(most));
  std::vector<std::string> texts;
  for (guint i = 0; i < json_array_get_length(array); ++i)
    texts.push_back(text_of(json_array_get_element(array, i), member, 32));
  return texts;
}

gint64 Message::integer(const char *member, gint64 least, gint64 most) const {
  JsonNode *node = find(member);
  const bool is_integer = node && json_node_get_value_type(node) == G_TYPE_INT64;
  if (!is_integer || json_node_get_int(node) < least || json_node_get_int(node) > most)
    fail(member, "a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return json_node_get_int(node);
}

double Message::number(const char *member, double least, double most) const {
  JsonNode *node = find(member);
  const GType type = node ? json_node_get_value_type(node) : G_TYPE_INVALID;
  const bool is_number = type == G_TYPE_INT64 || type == G_TYPE_DOUBLE;
  const double value = is_number ? json_node_get_double(node) : least;
  if (!is_number || value < least || value > most)
    fail(member, "a number from " + plain(least) + " to " + plain(most));
  return value;
}

bool Message::truth(const char *member) const {
  JsonNode *node = find(member);
  if (node && json_node_get_value_type(node) != G_TYPE_BOOLEAN) fail(member, "true or false");
  return node && json_node_get_boolean(node);
}

Json &Json::text(const char *name, const std::string &value) {
  json_object_set_string_member(object_, name, value.c_str());
  return *this;
}

Json &Json::texts(const char *name, const std::vector<std::string> &values) {
  JsonArray *array = json_array_new();
  for (const std::string &value : values) json_array_add_string_element(array, value.c_str());
  json_object_set_array_member(object_, name, array);
  return *this;
}

Json &Json::integer(const char *name, gint64 value) {
  json_object_set_int_member(object_, name, value);
  return *this;
}

Json &Json::truth(const char *name, bool value) {
  json_object_set_boolean_member(object_, name, value);
  return *this;
}

Json &Json::objects(const char *name, std::vector<Json> values) {
  JsonArray *array = json_array_new();
  for (Json &value : values) json_array_add_object_element(array, std::exchange(value.object_, nullptr));
  json_object_set_array_member(object_, name, array);
  return *this;
}

Json &Json::object(const char *name, Json value) {
  json_object_set_object_member(object_, name, std::exchange(value.object_, nullptr));
  return *this;
}

Json &Json::property(const char *name, GObject *object, const char *property) {
  GParamSpec *pspec = g_object_class_find_property(G_OBJECT_GET_CLASS(object), property);
  g_auto(GValue) value = G_VALUE_INIT;
  g_object_get_property(object, property, &value);
  const bool is_default = g_param_value_defaults(pspec, &value);
  json_object_set_member(object_, name, is_default ? json_node_new(JSON_NODE_NULL) : node_of(&value));
  return *this;
}

Json &Json::fields(const GstStructure *structure) {
  for (int i = 0; i < gst_structure_n_fields(structure); ++i) {
    const char *name = gst_structure_nth_field_name(structure, guint(i));
    json_object_set_member(object_, name, node_of(gst_structure_get_value(structure, name)));
  }
  return *this;
}

std::string Json::to_string() const {
  g_autoptr(JsonNode) node = json_node_alloc();
  json_node_init_object(node, object_);
  g_autofree char *text = json_to_string(node, FALSE);
  return text;
}

}  // namespace studio
