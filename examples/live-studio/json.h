// The messages between page and program: one JSON object each, with a member "type".
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace studio {

/** A message that cannot be followed; what() is for the viewer. */
struct BadMessage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/** A message that came in, JSON as its standard has it and no more. Nothing of it is trusted: what is not as
 * expected throws BadMessage. */
class Message {
 public:
  explicit Message(const std::string &text);

  std::string type() const { return text("type", 32); }
  /** A text of at most `most` bytes. */
  std::string text(const char *member, size_t most) const;
  std::vector<std::string> texts(const char *member, size_t most) const;
  gint64 integer(const char *member, gint64 least, gint64 most) const;
  double number(const char *member, double least, double most) const;
  /** False if there is no such member. */
  bool truth(const char *member) const;
  bool has(const char *member) const { return root_.contains(member); }
  bool is_null(const char *member) const { return has(member) && root_.at(member).is_null(); }

 private:
  const nlohmann::json *find(const char *member) const { return has(member) ? &root_.at(member) : nullptr; }

  nlohmann::json root_;
};

/** A message that goes out, or an object in one. */
class Json {
 public:
  Json() = default;
  explicit Json(const char *type) { text("type", type); }

  Json &text(const char *name, const std::string &value) { return set(name, value); }
  Json &integer(const char *name, gint64 value) { return set(name, value); }
  Json &truth(const char *name, bool value) { return set(name, value); }
  Json &object(const char *name, const Json &value) { return set(name, value.object_); }
  Json &objects(const char *name, const std::vector<Json> &values);
  /** Null where the value is its property's default, which stands for "as the model suggests". */
  Json &property(const char *name, GObject *object, const char *property);
  /** Each field of a structure as it is; 64-bit numbers that a double does not hold become text. */
  Json &fields(const GstStructure *structure);

  std::string to_string() const;

 private:
  Json &set(const char *name, nlohmann::json value) {
    object_[name] = std::move(value);
    return *this;
  }

  nlohmann::json object_ = nlohmann::json::object();
};

using Send = std::function<void(const Json &)>;

}  // namespace studio
