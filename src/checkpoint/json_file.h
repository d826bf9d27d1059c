// SPDX-License-Identifier: LGPL-2.1-or-later
//
// A JSON file of a checkpoint, read with errors that name the file and the key.
#pragma once

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "error.h"

namespace wan {

using Json = nlohmann::json;

/// Parses untrusted JSON, one value and nothing behind it: valid UTF-8, no duplicate keys in one object, at
/// most 8 levels deep (so what walks through it may recurse) and of at most 4 million values. `source` names
/// it in errors. `keep`, where given, hears of each value as Json::parse() tells it, and may refuse it.
/// Throws wan::Error (WAN_INVALID).
Json parse_json(std::string_view text, const std::string &source, const Json::parser_callback_t &keep = {});
/// The same of a regular file of at most so many bytes. Throws WAN_NOT_FOUND where there is none.
Json read_json(const std::filesystem::path &path, uintmax_t most_bytes = 8 << 20);

/// One JSON file whose top level is an object.
class JsonFile {
 public:
  /// Throws wan::Error: WAN_NOT_FOUND where there is no such file, WAN_INVALID where it is not a JSON object.
  explicit JsonFile(const std::filesystem::path &path);
  /// Takes text instead of a file; `source` names it in errors.
  JsonFile(std::string_view text, const std::string &source);

  const std::string &source() const { return source_; }
  const Json &json() const { return json_; }

  /// True where the key is there and not null.
  bool has(const char *key) const;
  /// The value of a key, or nothing where it is absent or null. Throws WAN_INVALID where its type is another;
  /// a number with a point or an exponent is no whole one.
  template <typename T>
  std::optional<T> find(const char *key) const;
  /// The value of a key, or `fallback` where it is absent or null.
  template <typename T>
  T get(const char *key, T fallback) const {
    return find<T>(key).value_or(std::move(fallback));
  }
  /// A whole number in [least, most], or `fallback` where the key is absent or null.
  int64_t integer(const char *key, int64_t fallback, int64_t least, int64_t most) const;
  /// A number in [least, most], or `fallback` where the key is absent or null.
  double number(const char *key, double fallback, double least, double most) const;
  /// Throws where there is another key than these.
  void allow_only(const std::vector<std::string> &keys) const;

  Error error(const std::string &key, const std::string &what) const;

 private:
  JsonFile(Json json, const std::string &source);

  std::string source_;
  Json json_;
};

/// Json::get() would cut off fractions, and numbers beyond 64 bits have no defined value there.
template <typename T>
bool is_whole_where_asked(const Json &value) {
  if constexpr (std::is_same_v<T, int64_t>) return value.is_number_integer();
  if constexpr (std::is_same_v<T, std::vector<int64_t>>)
    return std::all_of(value.begin(), value.end(), is_whole_where_asked<int64_t>);
  return true;
}

template <typename T>
std::optional<T> JsonFile::find(const char *key) const {
  if (!has(key)) return std::nullopt;
  if (!is_whole_where_asked<T>(json_.at(key))) throw error(key, "must hold whole numbers");
  try {
    return json_.at(key).get<T>();
  } catch (const Json::exception &) {
    throw error(key, "has a value of the wrong type");
  }
}

}  // namespace wan
