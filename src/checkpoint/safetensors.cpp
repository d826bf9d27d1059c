// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <set>

#include "checkpoint/input_file.h"
#include "checkpoint/json_file.h"
#include "checkpoint/names.h"
#include "checkpoint/pickle.h"

namespace wan {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

namespace {

constexpr uint64_t kMaxHeaderSize = 100'000'000;  // the reference reader's limit
// Of a released A14B there are 1100 tensors. What one of them says of itself is a dtype, a shape of at most
// 64 dimensions (LibTorch's limit) and two offsets.
constexpr size_t kMaxTensors = 100'000, kMaxNameSize = 1000;
constexpr int kMaxEntryValues = 100;
constexpr const char *kMetadata = "__metadata__";

uint64_t unsigned_number(const Json &value, const std::string &tensor, const std::string &source) {
  if (!value.is_number_unsigned())
    throw invalid(source + ": tensor '" + tensor + "' has a size or offset that is not a whole number");
  return value.get<uint64_t>();
}

/// Bytes that dtype and shape ask for. No product of lengths may overflow, not even beside a length of 0:
/// strides are such products.
uint64_t byte_size(const TensorEntry &entry, const std::string &tensor, const std::string &source) {
  const size_t bits = safetensors_element_bits(entry.dtype);
  if (bits == 0)
    throw invalid(source + ": tensor '" + tensor + "' has the unknown dtype '" + entry.dtype + "'");
  uint64_t size = bits;
  for (const int64_t dimension : entry.shape)
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(std::max<int64_t>(dimension, 1)), &size))
      throw invalid(source + ": tensor '" + tensor + "' is too large");
  if (std::ranges::find(entry.shape, 0) != entry.shape.end()) return 0;
  if (size % 8) throw invalid(source + ": tensor '" + tensor + "' ends within a byte");
  return size / 8;
}

TensorEntry parse_entry(const Json &json, const std::string &tensor, const std::string &source) {
  const bool complete = json.is_object() && json.contains("dtype") && json["dtype"].is_string() &&
                        json.contains("shape") && json["shape"].is_array() && json.contains("data_offsets") &&
                        json["data_offsets"].is_array() && json["data_offsets"].size() == 2;
  if (!complete) throw invalid(source + ": tensor '" + tensor + "' lacks dtype, shape or data_offsets");
  TensorEntry entry;
  entry.dtype = json["dtype"].get<std::string>();
  for (const Json &dimension : json["shape"]) {
    const uint64_t length = unsigned_number(dimension, tensor, source);
    if (length > INT64_MAX) throw invalid(source + ": tensor '" + tensor + "' is too large");
    entry.shape.push_back(static_cast<int64_t>(length));
  }
  entry.begin = unsigned_number(json["data_offsets"][0], tensor, source);
  entry.end = unsigned_number(json["data_offsets"][1], tensor, source);
  if (entry.end < entry.begin || entry.end - entry.begin != byte_size(entry, tensor, source))
    throw invalid(source + ": tensor '" + tensor + "' has offsets that do not fit its shape");
  return entry;
}

/// The tensors must tile the data section.
void check_tiling(const std::map<std::string, TensorEntry> &tensors, uint64_t data_size,
                  const std::string &source) {
  std::vector<std::pair<const TensorEntry *, const std::string *>> order;
  for (const auto &[name, entry] : tensors) order.emplace_back(&entry, &name);
  std::sort(order.begin(), order.end(), [](const auto &a, const auto &b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  uint64_t position = 0;
  for (const auto &[entry, name] : order) {
    if (entry->end > data_size)
      throw invalid(source + " is truncated: tensor '" + *name + "' ends after the end of the file");
    if (entry->begin != position)
      throw invalid(source + ": tensor '" + *name + "' overlaps another or leaves a hole");
    position = entry->end;
  }
  if (position != data_size) throw invalid(source + " has bytes after its last tensor");
}

}  // namespace

size_t safetensors_element_bits(std::string_view dtype) {
  static const std::map<std::string_view, size_t> bits = {
      {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"BOOL", 8},    {"U8", 8},    {"I8", 8},
      {"F8_E4M3", 8},     {"F8_E5M2", 8}, {"U16", 16},    {"I16", 16},    {"F16", 16},  {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"U32", 32},    {"I32", 32},    {"F8_E8M0", 8}, {"BF16", 16}, {"F32", 32},
      {"U64", 64},        {"I64", 64},    {"F64", 64},    {"C64", 64}};
  const auto found = bits.find(dtype);
  return found == bits.end() ? 0 : found->second;
}

namespace {

uint64_t header_size_of(std::string_view head) {
  uint64_t size;
  std::memcpy(&size, head.data(), sizeof(size));
  return size;
}

/// Whether it is a text and no numbers, as a server's message in place of a file.
bool is_text(std::string_view head) {
  return std::ranges::all_of(head, [](char c) { return (c >= ' ' && c <= '~') || c == '\n' || c == '\r'; });
}

/// `reason`: how one sees that it is none.
Error not_safetensors(std::string_view head, const std::string &source, const std::string &reason) {
  if (const std::string content = foreign_content(head); !content.empty())
    return invalid(source + " is no safetensors file (" + reason + ") but " + content);
  constexpr size_t kShown = 40;
  const std::string_view begin = head.substr(0, std::min(kShown, head.find_first_of("\r\n")));
  if (is_text(head.substr(0, kShown)))
    return invalid(source + " is no safetensors file (" + reason + ") but a text that begins with '" +
                   std::string(begin) + "', perhaps a server's message: download the file again");
  return invalid(source + " is not a safetensors file: " + reason);
}

/// Takes the entries of a header one by one while it is parsed, so that no more than one is there as JSON.
class EntryReader {
 public:
  EntryReader(TensorHeader &header, const std::string &source) : header_(header), source_(source) {}

  /// For parse_json: false of an entry that was taken, which is then forgotten.
  bool operator()(int depth, Json::parse_event_t event, Json &value) {
    using Event = Json::parse_event_t;
    if (depth == 0) return true;
    if (depth == 1 && event == Event::key) begin(value.get<std::string>());
    const size_t most = name_ == kMetadata ? kMaxTensors : kMaxEntryValues;
    if (++values_ > most) throw invalid(source_ + ": '" + name_ + "' holds too many values");
    const bool complete = event == Event::value || event == Event::object_end || event == Event::array_end;
    if (depth == 1 && complete) end(value);
    return depth > 1 || !complete;
  }

 private:
  void begin(std::string name) {
    name_ = std::move(name);
    values_ = 0;
    if (name_.size() > kMaxNameSize)
      throw invalid(source_ + " has a tensor whose name is of " + std::to_string(name_.size()) + " bytes");
    if (header_.tensors.size() == kMaxTensors)
      throw invalid(source_ + " has more than " + std::to_string(kMaxTensors) + " tensors");
  }

  void end(const Json &value) {
    if (name_ != kMetadata)
      header_.tensors.emplace(name_, parse_entry(value, name_, source_));
    else if (!value.is_null())
      read_metadata(value);
  }

  void read_metadata(const Json &value) {
    try {
      value.get_to(header_.metadata);
    } catch (const Json::exception &) {
      throw invalid(source_ + ": '" + kMetadata + "' must hold texts");
    }
  }

  TensorHeader &header_;
  const std::string &source_;
  std::string name_;  // of the entry that is being parsed
  size_t values_ = 0;
};

/// The bytes up to the data, or fewer where the file is too short or no safetensors file.
std::string read_head(const ReadBytes &read, uint64_t file_size) {
  constexpr uint64_t kSignature = 64;
  std::string head = read(0, std::min(file_size, kSignature));
  if (head.size() < sizeof(uint64_t) || header_size_of(head) > kMaxHeaderSize) return head;
  return read(0, std::min(file_size, sizeof(uint64_t) + header_size_of(head)));
}

}  // namespace

TensorHeader parse_safetensors_header(std::string_view head, uint64_t file_size, const std::string &source) {
  if (head.size() < sizeof(uint64_t)) throw not_safetensors(head, source, "it is too short");
  const uint64_t header_size = header_size_of(head);
  if (header_size > kMaxHeaderSize) throw not_safetensors(head, source, "its header is too large");
  TensorHeader header;
  header.data_begin = sizeof(header_size) + header_size;
  const std::string_view text = head.substr(sizeof(header_size), header_size);
  if (!text.starts_with('{')) throw not_safetensors(head, source, "its header is not JSON");
  if (header.data_begin > file_size || header.data_begin > head.size())
    throw invalid(source + " is truncated: it ends within its header; download it again");
  parse_json(text, source, EntryReader(header, source));
  check_tiling(header.tensors, file_size - header.data_begin, source);
  return header;
}

TensorHeader read_safetensors_header(const ReadBytes &read, uint64_t file_size, const std::string &source) {
  return parse_safetensors_header(read_head(read, file_size), file_size, source);
}

std::map<std::string, std::string> parse_weight_map(const JsonFile &index) {
  auto weight_map = index.find<std::map<std::string, std::string>>("weight_map");
  if (!weight_map) throw index.error("weight_map", "is missing");
  for (const auto &[tensor, shard] : *weight_map)
    if (shard.empty() || shard != std::filesystem::path(shard).filename().string() || shard == "." ||
        shard == "..")
      throw index.error("weight_map", "names the shard '" + shard + "', which is not a file name");
  return *std::move(weight_map);
}

namespace {

/// Of a component in one file.
TensorFile open_single(const std::filesystem::path &directory, const std::string &stem) {
  const std::filesystem::path path = directory / (stem + ".safetensors");
  if (!is_there(path))
    for (const std::string_view extension : kPickleExtensions)
      if (const auto pickle = directory / std::string(stem).append(extension); is_there(pickle))
        throw pickle_error(pickle.string());
  return TensorFile(path);
}

/// The index's shards by name; all that are missing are in one error.
std::map<std::string, TensorFile> open_shards(const std::filesystem::path &directory,
                                              const std::map<std::string, std::string> &weight_map,
                                              const std::string &index) {
  std::set<std::string> shards;
  std::vector<std::string> missing;
  for (const auto &[tensor, shard] : weight_map)
    if (shards.insert(shard).second && !is_there(directory / shard)) missing.push_back(shard);
  if (!missing.empty())
    throw not_found("There is no file " + list_names(missing) + " in " + directory.string() + ", which " +
                    index + " names: download what is missing");
  std::map<std::string, TensorFile> files;
  for (const std::string &shard : shards) files.emplace(shard, directory / shard);
  return files;
}

}  // namespace

std::vector<TensorFile> open_safetensors(const std::filesystem::path &directory, const std::string &stem) {
  const std::filesystem::path index_path = directory / (stem + ".safetensors.index.json");
  if (!is_there(index_path)) return {open_single(directory, stem)};
  const JsonFile index(index_path);
  const auto weight_map = parse_weight_map(index);
  const auto shards = open_shards(directory, weight_map, index.source());
  for (const auto &[tensor, shard] : weight_map)
    if (const TensorFile &file = shards.at(shard); !file.tensors().contains(tensor))
      throw invalid(file.path() + " lacks the tensor '" + tensor + "' that " + index.source() + " promises");
  std::vector<TensorFile> files;
  for (const auto &[name, file] : shards) files.push_back(file);
  return files;
}

}  // namespace wan
