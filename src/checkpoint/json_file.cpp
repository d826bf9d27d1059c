// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/json_file.h"

#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "checkpoint/input_file.h"

namespace wan {

namespace {

constexpr int kMaxDepth = 8;
// Some hundred bytes of memory each at the worst; UMT5's tokenizer.json has 800,000.
constexpr size_t kMaxValues = 4 << 20;

std::string read_file(const std::filesystem::path &path, uintmax_t most) {
  const InputFile file(path);
  if (file.size() > most)
    throw invalid(path.string() + " is too large: it may have " + std::to_string(most >> 20) + " MiB");
  return file.read(0, file.size());
}

/// Hears what the parser meets, and ends it where that is not for us.
class Watch {
 public:
  Watch(const std::string &source, const Json::parser_callback_t &keep) : source_(source), keep_(keep) {}

  bool operator()(int depth, Json::parse_event_t event, Json &value) {
    if (depth > kMaxDepth) throw invalid(source_ + " is nested too deeply");
    if (++events_ > kMaxValues) throw invalid(source_ + " holds too many values");
    if (event == Json::parse_event_t::object_start) keys_.emplace_back();
    if (event == Json::parse_event_t::object_end) keys_.pop_back();
    if (event == Json::parse_event_t::key) add_key(value.get_ref<const std::string &>());
    return !keep_ || keep_(depth, event, value);
  }

 private:
  void add_key(const std::string &key) {
    if (!keys_.back().insert(key).second)
      throw invalid(source_ + " has the key '" + printable(key) + "' twice");
  }

  const std::string &source_;
  const Json::parser_callback_t &keep_;
  std::vector<std::set<std::string>> keys_;  // of every object that is open
  size_t events_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string &source, const Json::parser_callback_t &keep) {
  // The parser takes a NUL for the end of the text.
  if (text.find('\0') != text.npos) throw invalid(source + " is not valid JSON: it has a NUL byte");
  Watch watch(source, keep);
  try {
    return Json::parse(text, std::ref(watch));
  } catch (const Json::exception &failure) {
    if (const std::string content = foreign_content(text); !content.empty())
      throw invalid(source + " is not valid JSON but " + content);
    throw invalid(source + " is not valid JSON: " + printable(failure.what()));
  }
}

Json read_json(const std::filesystem::path &path, uintmax_t most_bytes) {
  return parse_json(read_file(path, most_bytes), path.string());
}

JsonFile::JsonFile(const std::filesystem::path &path) : JsonFile(read_json(path), path.string()) {}

JsonFile::JsonFile(std::string_view text, const std::string &source)
    : JsonFile(parse_json(text, source), source) {}

JsonFile::JsonFile(Json json, const std::string &source) : source_(source), json_(std::move(json)) {
  if (!json_.is_object()) throw invalid(source + " does not hold a JSON object");
}

bool JsonFile::has(const char *key) const {
  const auto found = json_.find(key);
  return found != json_.end() && !found->is_null();
}

int64_t JsonFile::integer(const char *key, int64_t fallback, int64_t least, int64_t most) const {
  if (!has(key)) return fallback;
  const Json &value = json_.at(key);
  if (!value.is_number_integer() || value.get<int64_t>() < least || value.get<int64_t>() > most)
    throw error(key, "must be a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return value.get<int64_t>();
}

double JsonFile::number(const char *key, double fallback, double least, double most) const {
  const double value = get<double>(key, fallback);
  if (!(value >= least && value <= most))
    throw error(key, "must be a number from " + number_text(least) + " to " + number_text(most));
  return value;
}

void JsonFile::allow_only(const std::vector<std::string> &keys) const {
  for (const auto &[key, value] : json_.items()) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    std::string known;
    for (const std::string &each : keys) known += (known.empty() ? "" : ", ") + each;
    throw error(key, "is not known; the keys are " + known);
  }
}

Error JsonFile::error(const std::string &key, const std::string &what) const {
  return invalid(source_ + ": '" + printable(key) + "' " + what);
}

}  // namespace wan
