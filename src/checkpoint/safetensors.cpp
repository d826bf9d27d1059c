#include "checkpoint/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include "checkpoint/json_file.h"
#include "checkpoint/pickle.h"

namespace wan {

static_assert(std::endian::native == std::endian::little, "safetensors files are little endian");

namespace {

constexpr uint64_t kMaxHeaderSize = 100'000'000;  // the reference reader's limit

uint64_t unsigned_number(const Json &value, const std::string &tensor, const std::string &source) {
  if (!value.is_number_unsigned())
    throw invalid(source + ": tensor '" + tensor + "' has a size or offset that is not a whole number");
  return value.get<uint64_t>();
}

/// Bytes that dtype and shape ask for.
uint64_t byte_size(const TensorEntry &entry, const std::string &tensor, const std::string &source) {
  uint64_t size = safetensors_element_size(entry.dtype);
  if (size == 0)
    throw invalid(source + ": tensor '" + tensor + "' has the unknown dtype '" + entry.dtype + "'");
  for (const int64_t dimension : entry.shape)
    if (__builtin_mul_overflow(size, static_cast<uint64_t>(dimension), &size))
      throw invalid(source + ": tensor '" + tensor + "' is too large");
  return size;
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

class FileDescriptor {
 public:
  explicit FileDescriptor(const std::string &path) : number(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (number >= 0) return;
    if (errno == ENOENT) throw not_found("There is no file " + path);
    throw invalid(path + " cannot be opened: " + std::strerror(errno));
  }
  ~FileDescriptor() { close(number); }
  FileDescriptor(const FileDescriptor &) = delete;
  FileDescriptor &operator=(const FileDescriptor &) = delete;

  const int number;
};

namespace {

/// Maps a whole file; `size` receives its bytes.
std::shared_ptr<const std::byte> map_file(const FileDescriptor &file, const std::string &path,
                                          uint64_t &size) {
  struct stat status;
  if (fstat(file.number, &status) != 0 || !S_ISREG(status.st_mode)) throw invalid(path + " is not a file");
  size = static_cast<uint64_t>(status.st_size);
  if (size < sizeof(uint64_t)) throw invalid(path + " is too short for a safetensors file");
  void *address = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (address == MAP_FAILED) throw invalid(path + " cannot be mapped: " + std::strerror(errno));
  return {static_cast<const std::byte *>(address),
          [size](const std::byte *bytes) { munmap(const_cast<std::byte *>(bytes), size); }};
}

}  // namespace

size_t safetensors_element_size(std::string_view dtype) {
  static const std::map<std::string_view, size_t> sizes = {
      {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
      {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};
  const auto found = sizes.find(dtype);
  return found == sizes.end() ? 0 : found->second;
}

SafetensorsHeader parse_safetensors_header(std::string_view head, uint64_t file_size,
                                           const std::string &source) {
  uint64_t header_size = 0;
  if (head.size() < sizeof(header_size)) throw invalid(source + " is too short for a safetensors file");
  std::memcpy(&header_size, head.data(), sizeof(header_size));
  if (header_size > kMaxHeaderSize)
    throw invalid(source + " is not a safetensors file: its header is too large");
  SafetensorsHeader header;
  header.data_begin = sizeof(header_size) + header_size;
  if (header.data_begin > file_size || header.data_begin > head.size())
    throw invalid(source + " is truncated: it ends within its header");
  const std::string_view text = head.substr(sizeof(header_size), header_size);
  if (!text.starts_with('{')) throw invalid(source + " is not a safetensors file: its header is not JSON");

  const JsonFile file(text, source);
  if (const auto metadata = file.find<std::map<std::string, std::string>>("__metadata__"))
    header.metadata = *metadata;
  for (const auto &[name, json] : file.json().items())
    if (name != "__metadata__") header.tensors.emplace(name, parse_entry(json, name, source));
  check_tiling(header.tensors, file_size - header.data_begin, source);
  return header;
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path &path) : path_(path.string()) {
  if (is_pickle(path)) throw pickle_error(path_);
  file_ = std::make_shared<const FileDescriptor>(path_);
  uint64_t size = 0;
  mapping_ = map_file(*file_, path_, size);
  const std::string_view bytes(reinterpret_cast<const char *>(mapping_.get()), size);
  header_ = parse_safetensors_header(bytes, size, path_);
}

void SafetensorsFile::read(uint64_t begin, size_t size, std::byte *out) const {
  for (size_t done = 0; done < size;) {
    const auto offset = static_cast<off_t>(header_.data_begin + begin + done);
    const ssize_t count = pread(file_->number, out + done, size - done, offset);
    if (count == 0) throw invalid(path_ + " is truncated: it has become shorter while it was read");
    if (count < 0 && errno != EINTR) throw invalid(path_ + " cannot be read: " + std::strerror(errno));
    if (count > 0) done += static_cast<size_t>(count);
  }
}

std::vector<SafetensorsFile> open_safetensors(const std::filesystem::path &directory,
                                              const std::string &stem) {
  const std::filesystem::path index_path = directory / (stem + ".safetensors.index.json");
  std::vector<SafetensorsFile> files;
  if (!std::filesystem::exists(index_path)) {
    const std::filesystem::path path = directory / (stem + ".safetensors");
    if (!std::filesystem::exists(path))
      for (const std::string_view extension : kPickleExtensions)
        if (const auto pickle = directory / std::string(stem).append(extension);
            std::filesystem::exists(pickle))
          throw pickle_error(pickle.string());
    files.emplace_back(path);
    return files;
  }
  const JsonFile index(index_path);
  const auto weight_map = index.find<std::map<std::string, std::string>>("weight_map");
  if (!weight_map) throw index.error("weight_map", "is missing");
  std::set<std::string> shards;
  for (const auto &[tensor, shard] : *weight_map) {
    if (shard.empty() || shard != std::filesystem::path(shard).filename().string() || shard == "..")
      throw index.error("weight_map", "names the shard '" + shard + "', which is not a file name");
    shards.insert(shard);
  }
  for (const std::string &shard : shards) files.emplace_back(directory / shard);
  for (const auto &[tensor, shard] : *weight_map) {
    const std::string path = (directory / shard).string();
    const auto file = std::find_if(files.begin(), files.end(), [&path](const SafetensorsFile &candidate) {
      return candidate.path() == path;
    });
    if (!file->tensors().contains(tensor))
      throw invalid(file->path() + " lacks the tensor '" + tensor + "' that " + index.source() + " promises");
  }
  return files;
}

}  // namespace wan
