// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/gguf.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "checkpoint/safetensors.h"
#include "ops/ggml_types.h"

namespace wan {

static_assert(std::endian::native == std::endian::little, "the GGUF files that are read are little endian");

namespace {

constexpr std::string_view kMagic = "GGUF";
// UMT5's tokenizer takes 8 MB of metadata. Names are ggml's up to 64 bytes, and ComfyUI-GGUF's up to 127.
constexpr uint64_t kMaxHeaderSize = 100'000'000, kMaxKeys = 100'000, kMaxTensors = 100'000,
                   kMaxNameSize = 1000;
constexpr uint32_t kMaxDimensions = 5;  // ggml has four, and ComfyUI-GGUF adds a convolution of five
constexpr int kMaxDepth = 4;            // of arrays in arrays
constexpr uint64_t kDefaultAlignment = 32, kMaxAlignment = 65536;
constexpr std::string_view kAlignment = "general.alignment", kSplitCount = "split.count",
                           kOriginalShape = "comfy.gguf.orig_shape.";

/// Of a value of the metadata (enum gguf_type).
enum class ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

/// Bytes of a value, 0 where it is a string, an array or nothing that is known.
uint64_t size_of(ValueType type) {
  constexpr uint8_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto index = static_cast<uint32_t>(type);
  return index < std::size(kSizes) ? kSizes[index] : 0;
}

/// Types that are no blocks, and safetensors' names for them.
std::string_view plain_dtype(uint32_t ggml_type) {
  constexpr std::pair<uint32_t, std::string_view> kDtypes[] = {
      {0, "F32"}, {1, "F16"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}, {28, "F64"}, {30, "BF16"}};
  const auto *found = std::ranges::find(kDtypes, ggml_type, &std::pair<uint32_t, std::string_view>::first);
  return found == std::end(kDtypes) ? "" : found->second;
}

/// Reads a file from its beginning, a piece at a time.
class Cursor {
 public:
  Cursor(const ReadBytes &read, uint64_t file_size, const std::string &source)
      : read_(read), file_size_(file_size), source_(source) {}

  uint64_t position() const { return position_; }
  /// The file's first bytes.
  std::string head() const { return read_(0, std::min(file_size_, uint64_t{64})); }

  void skip(uint64_t size) {
    if (size > file_size_ - position_)
      throw invalid(source_ + " is truncated: it ends within its header; download it again");
    if (size > kMaxHeaderSize - position_) throw invalid(source_ + ": its header is too large");
    position_ += size;
  }
  std::string bytes(uint64_t size) {
    const uint64_t begin = position_;
    skip(size);
    if (position_ > piece_begin_ + piece_.size()) {
      piece_begin_ = begin;
      piece_ = read_(begin, std::min(file_size_ - begin, std::max(size, kPiece)));
    }
    return piece_.substr(begin - piece_begin_, size);
  }
  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, bytes(sizeof value).data(), sizeof value);
    return value;
  }

 private:
  static constexpr uint64_t kPiece = 65536;

  const ReadBytes &read_;
  const uint64_t file_size_;
  const std::string &source_;
  uint64_t position_ = 0, piece_begin_ = 0;
  std::string piece_;
};

/// a * b, or nothing where that is no int64_t.
std::optional<uint64_t> product(uint64_t a, uint64_t b) {
  int64_t result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return static_cast<uint64_t>(result);
}

uint64_t aligned(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

class Reader {
 public:
  Reader(const ReadBytes &read, uint64_t file_size, const std::string &source)
      : cursor_(read, file_size, source), file_size_(file_size), source_(source) {}

  TensorHeader header() {
    read_version();
    const auto tensors = cursor_.number<uint64_t>(), keys = cursor_.number<uint64_t>();
    if (tensors > kMaxTensors || keys > kMaxKeys)
      throw invalid(source_ + " has " + std::to_string(tensors) + " tensors and " + std::to_string(keys) +
                    " keys of metadata, which is too much");
    for (uint64_t i = 0; i < keys; ++i) read_key();
    for (uint64_t i = 0; i < tensors; ++i) read_tensor();
    header_.data_begin = aligned(cursor_.position(), alignment_);
    check_places();
    for (auto &[name, entry] : header_.tensors) restore_shape(name, entry);
    return std::move(header_);
  }

 private:
  Error error(const std::string &tensor, const std::string &what) const {
    return invalid(source_ + ": tensor '" + printable(tensor) + "' " + what);
  }

  Error no_gguf(const std::string &head) const {
    const std::string content = foreign_content(head);
    return invalid(
        source_ + " is no GGUF file" +
        (content.empty() ? ": it does not begin with 'GGUF'; download it again" : " but " + content));
  }

  void read_version() {
    const std::string head = cursor_.head();
    if (!head.starts_with(kMagic)) throw no_gguf(head);
    cursor_.skip(kMagic.size());
    const auto version = cursor_.number<uint32_t>();
    if (version % 65536 == 0) throw invalid(source_ + " is big endian: take the little-endian file");
    if (version != 2 && version != 3)
      throw invalid(source_ + " is of GGUF version " + std::to_string(version) +
                    ", but only 2 and 3 are read: take a newer file");
  }

  /// `what`: "a key".
  std::string name(const std::string &what) {
    const auto size = cursor_.number<uint64_t>();
    if (size > kMaxNameSize)
      throw invalid(source_ + " has " + what + " whose name is of " + std::to_string(size) + " bytes");
    return cursor_.bytes(size);
  }

  void read_key() {
    const std::string key = name("a key");
    if (!keys_.insert(key).second) throw invalid(source_ + " has the key '" + printable(key) + "' twice");
    const auto type = static_cast<ValueType>(cursor_.number<uint32_t>());
    if (key == kAlignment)
      alignment_ = read_alignment(type);
    else if (key == kSplitCount && type == ValueType::kUint16)
      require_whole(cursor_.number<uint16_t>());
    else if (key.starts_with(kOriginalShape) && type == ValueType::kArray)
      original_shapes_[key.substr(kOriginalShape.size())] = read_original_shape(key);
    else
      skip_value(key, type, 0);
  }

  uint64_t read_alignment(ValueType type) {
    const uint32_t alignment = type == ValueType::kUint32 ? cursor_.number<uint32_t>() : 0;
    if (!std::has_single_bit(alignment) || alignment > kMaxAlignment)
      throw invalid(source_ + ": its alignment is " + std::to_string(alignment) +
                    ", which is no power of two up to " + std::to_string(kMaxAlignment));
    return alignment;
  }

  void require_whole(uint16_t files) const {
    if (files > 1)
      throw invalid(source_ + " is one of " + std::to_string(files) +
                    " parts of a file: join them with 'llama-gguf-split --merge'");
  }

  std::vector<int64_t> read_original_shape(const std::string &key) {
    const auto type = static_cast<ValueType>(cursor_.number<uint32_t>());
    const auto dimensions = cursor_.number<uint64_t>();
    if (type != ValueType::kInt32 || dimensions > kMaxDimensions)
      throw invalid(source_ + ": '" + printable(key) + "' must hold at most " +
                    std::to_string(kMaxDimensions) + " numbers of 32 bits");
    std::vector<int64_t> shape;
    for (uint64_t i = 0; i < dimensions; ++i) shape.push_back(cursor_.number<int32_t>());
    return shape;
  }

  void skip_value(const std::string &key, ValueType type, int depth) {
    if (type == ValueType::kString) return cursor_.skip(cursor_.number<uint64_t>());
    if (type == ValueType::kArray) return skip_array(key, depth + 1);
    if (size_of(type) == 0)
      throw invalid(source_ + ": '" + printable(key) + "' has a value of the unknown type " +
                    std::to_string(static_cast<uint32_t>(type)));
    cursor_.skip(size_of(type));
  }

  void skip_array(const std::string &key, int depth) {
    if (depth > kMaxDepth)
      throw invalid(source_ + ": '" + printable(key) + "' has more than " + std::to_string(kMaxDepth) +
                    " arrays within each other");
    const auto type = static_cast<ValueType>(cursor_.number<uint32_t>());
    const auto length = cursor_.number<uint64_t>();
    if (size_of(type) > 0) return cursor_.skip(product(length, size_of(type)).value_or(UINT64_MAX));
    for (uint64_t i = 0; i < length; ++i) skip_value(key, type, depth);
  }

  void read_tensor() {
    const std::string tensor = name("a tensor");
    TensorEntry entry;
    const auto dimensions = cursor_.number<uint32_t>();
    if (dimensions > kMaxDimensions)
      throw error(tensor, "has " + std::to_string(dimensions) + " dimensions, and at most " +
                              std::to_string(kMaxDimensions) + " are read");
    for (uint32_t i = 0; i < dimensions; ++i) {
      const auto length = cursor_.number<uint64_t>();
      if (length > INT64_MAX) throw error(tensor, "is too large");
      entry.shape.insert(entry.shape.begin(), static_cast<int64_t>(length));
    }
    const uint64_t size = read_type(tensor, entry);
    entry.begin = cursor_.number<uint64_t>();
    if (__builtin_add_overflow(entry.begin, size, &entry.end))
      throw error(tensor, "has an offset that is too large");
    if (!header_.tensors.emplace(tensor, std::move(entry)).second)
      throw invalid(source_ + " has the tensor '" + printable(tensor) + "' twice");
  }

  /// Sets the dtype, and returns the bytes that it and the shape ask for.
  uint64_t read_type(const std::string &tensor, TensorEntry &entry) {
    const auto type = cursor_.number<uint32_t>();
    if (const BlockFormat *format = find_block_format(type)) {
      entry.dtype = format->name;
      if (entry.shape.empty() || entry.shape.back() % format->elements != 0)
        throw error(tensor, "is " + entry.dtype + ", but its rows are no multiples of " +
                                std::to_string(format->elements));
      return byte_size(tensor, entry, static_cast<uint64_t>(format->elements),
                       static_cast<uint64_t>(format->bytes));
    }
    entry.dtype = plain_dtype(type);
    if (entry.dtype.empty())
      throw error(tensor,
                  "is of ggml's type " + std::to_string(type) +
                      ", which is not read: take a file of F32, F16, BF16, Q8_0, Q6_K, Q5_0, Q5_1, Q5_K, "
                      "Q4_0, Q4_1, Q4_K, Q3_K, Q2_K, IQ4_NL or IQ4_XS");
    return byte_size(tensor, entry, 1, safetensors_element_bits(entry.dtype) / 8);
  }

  /// No product of lengths may overflow, not even beside a length of 0: strides are such products.
  uint64_t byte_size(const std::string &tensor, const TensorEntry &entry, uint64_t block_elements,
                     uint64_t block_bytes) const {
    std::optional<uint64_t> elements = 1;
    for (const int64_t length : entry.shape)
      if (elements) elements = product(*elements, static_cast<uint64_t>(std::max<int64_t>(length, 1)));
    const auto bytes = elements ? product(*elements, block_bytes) : std::nullopt;
    if (!bytes) throw error(tensor, "is too large");
    return std::ranges::find(entry.shape, 0) == entry.shape.end() ? *bytes / block_elements : 0;
  }

  /// Tensors follow each other, each at the next aligned place.
  void check_places() const {
    std::vector<std::pair<const TensorEntry *, const std::string *>> order;
    for (const auto &[tensor, entry] : header_.tensors) order.emplace_back(&entry, &tensor);
    std::ranges::sort(order, {},
                      [](const auto &item) { return std::pair(item.first->begin, item.first->end); });
    const uint64_t data_size = file_size_ - std::min(file_size_, header_.data_begin);
    uint64_t end = 0;
    for (const auto &[entry, tensor] : order) {
      if (entry->end > data_size)
        throw invalid(source_ + " is truncated: tensor '" + printable(*tensor) +
                      "' ends after the end of the file; download it again");
      if (entry->begin != aligned(end, alignment_)) throw error(*tensor, "overlaps another or leaves a hole");
      end = entry->end;
    }
    if (data_size > aligned(end, alignment_)) throw invalid(source_ + " has bytes after its last tensor");
  }

  /// Undoes what was done to a shape because ggml has only four dimensions, does without those of length 1
  /// before all others, and quantizes only rows that are multiples of a block.
  void restore_shape(const std::string &tensor, TensorEntry &entry) const {
    std::vector<int64_t> &shape = entry.shape;
    if (const auto original = original_shapes_.find(tensor); original != original_shapes_.end())
      return set_original(tensor, original->second, entry);
    const bool is_table = tensor.ends_with("modulation") || tensor.ends_with("img_emb.emb_pos");
    if (is_table && shape.size() == 2) shape.insert(shape.begin(), 1);
    // stable-diffusion.cpp: [out * in, depth, height, width]. The bias tells how many of these are out.
    if (const int64_t out = bias_length(tensor);
        shape.size() == 4 && out > 0 && shape[0] > out && shape[0] % out == 0) {
      shape.insert(shape.begin(), out);
      shape[1] /= out;
    }
  }

  /// As ComfyUI-GGUF's metadata has it.
  void set_original(const std::string &tensor, const std::vector<int64_t> &original,
                    TensorEntry &entry) const {
    const auto elements = [](const std::vector<int64_t> &shape) {
      std::optional<uint64_t> count = 1;
      for (const int64_t length : shape)
        count = count && length >= 0 ? product(*count, static_cast<uint64_t>(length)) : std::nullopt;
      return count;
    };
    if (elements(original) != elements(entry.shape))
      throw error(tensor, "has another number of values than its original shape in the metadata");
    entry.shape = original;
  }

  /// Of the module whose weight this is; 0 where it has none.
  int64_t bias_length(const std::string &tensor) const {
    constexpr std::string_view kWeight = "weight";
    if (!tensor.ends_with(kWeight)) return 0;
    const auto bias = header_.tensors.find(tensor.substr(0, tensor.size() - kWeight.size()) + "bias");
    return bias != header_.tensors.end() && bias->second.shape.size() == 1 ? bias->second.shape[0] : 0;
  }

  Cursor cursor_;
  const uint64_t file_size_;
  const std::string &source_;
  uint64_t alignment_ = kDefaultAlignment;
  std::set<std::string> keys_;
  std::map<std::string, std::vector<int64_t>> original_shapes_;
  TensorHeader header_;
};

}  // namespace

bool is_gguf(const std::filesystem::path &path) {
  const auto lower = [](unsigned char c) { return static_cast<char>(std::tolower(c)); };
  return std::ranges::equal(path.extension().string(), std::string_view(".gguf"), {}, lower);
}

TensorHeader parse_gguf(const ReadBytes &read, uint64_t file_size, const std::string &source) {
  return Reader(read, file_size, source).header();
}

}  // namespace wan
