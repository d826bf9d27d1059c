// Values of GObject properties: from and to C++, from other types and from text.
//
// SPDX-License-Identifier: LGPL-2.1-or-later
#pragma once

#include <gst/gst.h>

#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace wan {

void read_value(const GValue *value, std::string *text);
void read_value(const GValue *value, int *number);
void read_value(const GValue *value, unsigned *number);
void read_value(const GValue *value, int64_t *number);
void read_value(const GValue *value, uint64_t *number);
void read_value(const GValue *value, double *number);
void read_value(const GValue *value, std::vector<double> *numbers);  // a GstValueArray

void write_value(const std::string &text, GValue *value);
void write_value(int number, GValue *value);
void write_value(unsigned number, GValue *value);
void write_value(int64_t number, GValue *value);
void write_value(uint64_t number, GValue *value);
void write_value(double number, GValue *value);
void write_value(const std::vector<double> &numbers, GValue *value);

template <typename Enum>
requires std::is_enum_v<Enum>
void read_value(const GValue *value, Enum *result) {
  *result = Enum(g_value_get_enum(value));
}
template <typename Enum>
requires std::is_enum_v<Enum>
void write_value(Enum number, GValue *value) {
  g_value_set_enum(value, int(number));
}
template <typename T>
void read_value(const GValue *value, std::optional<T> *result) {
  read_value(value, &result->emplace());
}

/** A GValue of a type, which ends with its block. */
class Value {
 public:
  explicit Value(GType type) { g_value_init(&value_, type); }
  Value(const Value &) = delete;
  Value &operator=(const Value &) = delete;
  ~Value() { g_value_unset(&value_); }
  GValue *get() { return &value_; }

 private:
  GValue value_ = G_VALUE_INIT;
};

/** Converts a value to a property's type; text is read as gst-launch-1.0 reads it. False, and *to is left
 * unset, if it cannot be converted, would be another number then, or is out of the property's range. */
bool convert_value(const GValue *from, GParamSpec *pspec, GValue *to);

/** "VALUE is not a valid value for NAME." */
std::string value_error(const char *name, const GValue *value);

/** As many digits as make the number again, the same in every locale. */
std::string text_of(double value);
/** A value as a launch line has it behind "name=". */
std::string launch_text(const GValue *value);
/** " name=value". */
std::string assignment(const char *name, const std::string &text);

/** Names of files may be any bytes, but texts of messages and tags are UTF-8. */
std::string utf8(const std::string &text);

}  // namespace wan
