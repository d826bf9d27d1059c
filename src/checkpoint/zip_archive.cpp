// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/zip_archive.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "error.h"

namespace wan {

namespace {

constexpr uint64_t kMaxDirectory = uint64_t{64} << 20, kMaxEntries = 1'000'000;
constexpr size_t kEndSize = 22, kMaxComment = 0xffff, kLocatorSize = 20, kEnd64Size = 56, kLocalSize = 30,
                 kEntrySize = 46;
constexpr std::string_view kEnd = "PK\x05\x06", kLocator = "PK\x06\x07", kEnd64 = "PK\x06\x06",
                           kEntry = "PK\x01\x02", kLocal = "PK\x03\x04";
constexpr uint32_t kInExtraField = 0xffffffff;
constexpr uint16_t kZip64Field = 1, kEncrypted = 1;

/// Little endian, as the machine is.
template <typename T>
T number(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

class Directory {
 public:
  Directory(const ReadBytes &read, uint64_t file_size, const std::string &source)
      : read_(read), file_size_(file_size), source_(source) {}

  std::map<std::string, ZipEntry> entries() {
    const Place place = find();
    if (place.size > kMaxDirectory || place.entries > kMaxEntries)
      throw damaged("its directory is too large");
    const std::string bytes = read(place.begin, place.size);
    std::map<std::string, ZipEntry> entries;
    std::string_view rest = bytes;
    for (uint64_t i = 0; i < place.entries; ++i) add(rest, entries);
    return entries;
  }

 private:
  struct Place {
    uint64_t begin, size, entries;
  };

  Error damaged(const std::string &how) const {
    return invalid(source_ + " is no whole zip archive: " + how + "; download it again");
  }

  std::string read(uint64_t offset, uint64_t size) const {
    if (offset > file_size_ || size > file_size_ - offset) throw damaged("it ends before what it points to");
    return read_(offset, static_cast<size_t>(size));
  }

  /// At the end of the archive, before a comment.
  Place find() const {
    const uint64_t tail_size = std::min<uint64_t>(file_size_, kEndSize + kMaxComment);
    const std::string tail = read(file_size_ - tail_size, tail_size);
    const size_t at = tail.rfind(kEnd);
    if (at == std::string::npos || tail.size() - at < kEndSize) throw damaged("it has no directory");
    const Place place = {number<uint32_t>(tail, at + 16), number<uint32_t>(tail, at + 12),
                         number<uint16_t>(tail, at + 10)};
    const uint64_t end = file_size_ - tail_size + at;
    return end >= kLocatorSize && read(end - kLocatorSize, kLocator.size()) == kLocator
               ? find64(end - kLocatorSize)
               : place;
  }

  /// Of archives whose size does not fit 32 bits, or might not have.
  Place find64(uint64_t locator) const {
    const std::string end = read(number<uint64_t>(read(locator, kLocatorSize), 8), kEnd64Size);
    if (!end.starts_with(kEnd64)) throw damaged("its directory is not where it says");
    return {number<uint64_t>(end, 48), number<uint64_t>(end, 40), number<uint64_t>(end, 32)};
  }

  std::string_view take(std::string_view &rest, size_t size) const {
    if (rest.size() < size) throw damaged("its directory is truncated");
    const std::string_view taken = rest.substr(0, size);
    rest.remove_prefix(size);
    return taken;
  }

  void add(std::string_view &rest, std::map<std::string, ZipEntry> &entries) const {
    const std::string_view fixed = take(rest, kEntrySize);
    if (!fixed.starts_with(kEntry)) throw damaged("its directory is damaged");
    const std::string name(take(rest, number<uint16_t>(fixed, 28)));
    const std::string_view extra = take(rest, number<uint16_t>(fixed, 30));
    take(rest, number<uint16_t>(fixed, 32));  // a comment
    if (number<uint16_t>(fixed, 8) & kEncrypted || number<uint16_t>(fixed, 10) != 0)
      throw invalid(source_ + ": '" + printable(name) + "' is compressed or encrypted in this zip archive");
    uint64_t size = number<uint32_t>(fixed, 24), stored = number<uint32_t>(fixed, 20),
             offset = number<uint32_t>(fixed, 42);
    read_zip64_field(extra, size, stored, offset);
    if (size != stored) throw damaged("a file in it has two sizes");
    entries[name] = place_of(offset, size);
  }

  /// Those of the values that do not fit 32 bits, one behind the other.
  void read_zip64_field(std::string_view extra, uint64_t &size, uint64_t &stored, uint64_t &offset) const {
    while (extra.size() >= 4) {
      const auto id = number<uint16_t>(extra, 0), length = number<uint16_t>(extra, 2);
      extra.remove_prefix(4);
      std::string_view field = take(extra, length);
      if (id != kZip64Field) continue;
      for (uint64_t *value : {&size, &stored, &offset})
        if (*value == kInExtraField) *value = number<uint64_t>(take(field, sizeof(uint64_t)), 0);
    }
  }

  /// Before its bytes a file has a header once more, with a name and a field of other lengths.
  ZipEntry place_of(uint64_t offset, uint64_t size) const {
    const std::string local = read(offset, kLocalSize);
    if (!local.starts_with(kLocal)) throw damaged("a file in it is not where its directory says");
    const uint64_t begin = offset + kLocalSize + number<uint16_t>(local, 26) + number<uint16_t>(local, 28);
    if (begin > file_size_ || size > file_size_ - begin) throw damaged("it ends within a file");
    return {begin, begin + size};
  }

  const ReadBytes &read_;
  const uint64_t file_size_;
  const std::string &source_;
};

}  // namespace

std::map<std::string, ZipEntry> read_zip_directory(const ReadBytes &read, uint64_t file_size,
                                                   const std::string &source) {
  return Directory(read, file_size, source).entries();
}

}  // namespace wan
