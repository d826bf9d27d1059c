// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Files whose paths and bytes come from strangers: opened so that nothing can block, and read without being
// mapped, so that one that becomes shorter is an error and not a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

#include "error.h"

namespace wan {

/// A regular file, open for reading.
class InputFile {
 public:
  /// Throws wan::Error: WAN_NOT_FOUND where nothing is there, WAN_INVALID where it is no regular file (a
  /// directory, a FIFO, a socket, a device) or cannot be opened.
  explicit InputFile(const std::filesystem::path &path);
  ~InputFile();
  InputFile(const InputFile &) = delete;
  InputFile &operator=(const InputFile &) = delete;

  const std::string &path() const { return path_; }
  /// Bytes, when it was opened.
  uint64_t size() const { return size_; }
  /// Copies `size` bytes from `offset` on, from any thread. Throws wan::Error (WAN_INVALID) where the file
  /// ends before or cannot be read.
  void read(uint64_t offset, size_t size, void *out) const;
  /// The same as text.
  std::string read(uint64_t offset, size_t size) const;

 private:
  const std::string path_;
  const int descriptor_;
  uint64_t size_ = 0;
};

/// Bytes of a file, from an offset on; never asked for more than there are.
using ReadBytes = std::function<std::string(uint64_t offset, size_t size)>;

/// What a file is that was taken for another, by its first bytes, and what to do about it: "an HTML page: …".
/// Empty where they tell nothing.
std::string foreign_content(std::string_view head);

/// Whether something is there. Throws wan::Error (WAN_INVALID) where that cannot be known: a directory that
/// may not be searched, a name that is too long, links in a circle.
bool is_there(const std::filesystem::path &path);

/// The path of a user's spelling: a file:// URI is decoded, and "~" before the first slash is the home
/// directory. Throws wan::Error (WAN_INVALID) for a URI of another machine or with wrong escapes.
std::filesystem::path local_path(const std::string &spelled);

}  // namespace wan
