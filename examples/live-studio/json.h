// The messages between page and program: one JSON object each, with a member "type".
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>
#include <json-glib/json-glib.h>

#include <functional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace studio {

/** A message that cannot be followed; what() is for the viewer. */
struct BadMessage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** A message that came in. Nothing of it is trusted: what is not as expected throws BadMessage. */
class Message {
 public:
  explicit Message(const std::string &text);
  ~Message() { json_node_unref(root_); }
  Message(const Message &) = delete;
  Message &operator=(const Message &) = delete;

  std::string type() const { return text("type", 32); }
  /** A text of at most `most` bytes. */
  std::string text(const char *member, size_t most) const;
  std::vector<std::string> texts(const char *member, size_t most) const;
  gint64 integer(const char *member, gint64 least, gint64 most) const;
  double number(const char *member, double least, double most) const;
  /** False if there is no such member. */
  bool truth(const char *member) const;
  /** Null if there is no such member. */
  JsonNode *find(const char *member) const;

 private:
  JsonNode *root_;
};

/** A message that goes out, or an object in one. */
class Json {
 public:
  Json() : object_(json_object_new()) {}
  explicit Json(const char *type) : Json() { text("type", type); }
  Json(Json &&other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Json &operator=(Json &&) = delete;
  ~Json() { g_clear_pointer(&object_, json_object_unref); }

  Json &text(const char *name, const std::string &value);
  Json &texts(const char *name, const std::vector<std::string> &values);
  Json &integer(const char *name, gint64 value);
  Json &truth(const char *name, bool value);
  Json &objects(const char *name, std::vector<Json> values);
  Json &object(const char *name, Json value);
  /** Null where the value is its property's default, which stands for "as the model suggests". */
  Json &property(const char *name, GObject *object, const char *property);
  /** Each field of a structure as it is; 64-bit numbers that a double does not hold become text. */
  Json &fields(const GstStructure *structure);

  std::string to_string() const;

 private:
  JsonObject *object_;
};

using Send = std::function<void(const Json &)>;

}  // namespace studio
