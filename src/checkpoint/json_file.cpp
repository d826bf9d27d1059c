#include "checkpoint/json_file.h"

#include <fstream>
#include <set>
#include <vector>

namespace wan {

namespace {

constexpr int kMaxDepth = 8;
constexpr uintmax_t kMaxFileSize = 64 << 20;

std::string read_file(const std::filesystem::path &path) {
  std::error_code status;
  if (!std::filesystem::is_regular_file(path, status)) throw not_found("There is no file " + path.string());
  if (std::filesystem::file_size(path, status) > kMaxFileSize)
    throw invalid(path.string() + " is too large for a configuration file");
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) throw invalid(path.string() + " cannot be read");
  return text;
}

}  // namespace

Json parse_json(std::string_view text, const std::string &source) {
  std::vector<std::set<std::string>> keys;  // of every object that is open
  auto watch = [&](int depth, Json::parse_event_t event, Json &value) {
    if (depth > kMaxDepth) throw invalid(source + " is nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      throw invalid(source + " has the key '" + value.get<std::string>() + "' twice");
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception &failure) {
    throw invalid(source + " is not valid JSON: " + failure.what());
  }
}

JsonFile::JsonFile(const std::filesystem::path &path) : JsonFile(read_file(path), path.string()) {}

JsonFile::JsonFile(std::string_view text, const std::string &source)
    : source_(source), json_(parse_json(text, source)) {
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

Error JsonFile::error(const std::string &key, const std::string &what) const {
  return invalid(source_ + ": '" + key + "' " + what);
}

}  // namespace wan
