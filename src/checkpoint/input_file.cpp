// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/input_file.h"

#include <fcntl.h>
#include <glib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

namespace wan {

namespace {

/// What stands for one of the other kinds of things that a path can name.
std::string name_of_type(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  return S_ISSOCK(mode) ? "a socket" : "a device";
}

Error not_regular(const std::string &path, mode_t mode) {
  return invalid(path + " is " + name_of_type(mode) + ", but only regular files are read");
}

/// O_NONBLOCK: else a FIFO without a writer would wait for one.
int open_file(const std::string &path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor >= 0) return descriptor;
  const int error = errno;
  struct stat status;  // a socket cannot even be opened
  if (stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode)) throw not_regular(path, status.st_mode);
  if (error == ENOENT || error == ENOTDIR) throw not_found("There is no file " + path);
  throw invalid(path + " cannot be opened: " + std::strerror(error));
}

/// How the first bytes of a file tell what it is.
struct Signature {
  std::string_view bytes, what;
};
constexpr Signature kSignatures[] = {
    {"version https://git-lfs.github.com/spec/",
     "a Git LFS pointer, which only stands for the file: fetch that with 'git lfs pull'"},
    {"GGUF", "a GGUF file: let its name end in .gguf"},
    {"PK\x03\x04", "a zip archive or a pickle of PyTorch: unpack it, or take a .safetensors"},
    {"\x1f\x8b", "a gzip archive: unpack it"},
    {"\xfd"
     "7zXZ",
     "an xz archive: unpack it"},
    {"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"},
    {"7z\xbc\xaf", "a 7z archive: unpack it"},
    {"Rar!", "a RAR archive: unpack it"},
    {"<?xml", "an XML document, perhaps a server's error message: download the file again"},
    {"<error", "an XML document, perhaps a server's error message: download the file again"},
    {"<", "an HTML page, perhaps of the site that has the file: download the file itself"},
};

bool begins_with(std::string_view head, std::string_view bytes) {
  return head.size() >= bytes.size() && g_ascii_strncasecmp(head.data(), bytes.data(), bytes.size()) == 0;
}

/// Without the byte order mark and the white space that may stand before a text.
std::string_view text_of(std::string_view head) {
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
  const auto *begin = std::ranges::find_if_not(head, [](char c) { return g_ascii_isspace(c); });
  return {begin, head.end()};
}

}  // namespace

InputFile::InputFile(const std::filesystem::path &path)
    : path_(path.string()), descriptor_(open_file(path_)) {
  struct stat status;
  const bool known = fstat(descriptor_, &status) == 0;
  if (known && S_ISREG(status.st_mode)) {
    size_ = static_cast<uint64_t>(status.st_size);
    return;
  }
  const int error = errno;
  close(descriptor_);
  if (known) throw not_regular(path_, status.st_mode);
  throw invalid(path_ + " cannot be read: " + std::strerror(error));
}

InputFile::~InputFile() {
  close(descriptor_);
}

void InputFile::read(uint64_t offset, size_t size, void *out) const {
  for (size_t done = 0; done < size;) {
    const ssize_t count =
        pread(descriptor_, static_cast<char *>(out) + done, size - done, static_cast<off_t>(offset + done));
    if (count == 0) throw invalid(path_ + " is truncated: it has become shorter while it was read");
    if (count < 0 && errno != EINTR) throw invalid(path_ + " cannot be read: " + std::strerror(errno));
    if (count > 0) done += static_cast<size_t>(count);
  }
}

std::string InputFile::read(uint64_t offset, size_t size) const {
  std::string text(size, '\0');
  read(offset, size, text.data());
  return text;
}

std::string foreign_content(std::string_view head) {
  if (head.empty()) return "empty: download it again";
  const std::string_view text = text_of(head);
  for (const Signature &signature : kSignatures)
    if (begins_with(head, signature.bytes) || begins_with(text, signature.bytes))
      return std::string(signature.what);
  return {};
}

bool is_there(const std::filesystem::path &path) {
  std::error_code error;
  const bool there = std::filesystem::exists(path, error);
  if (error) throw invalid(path.string() + " cannot be looked at: " + error.message());
  return there;
}

std::filesystem::path local_path(const std::string &spelled) {
  if (spelled == "~" || spelled.starts_with("~/")) return g_get_home_dir() + spelled.substr(1);
  if (!begins_with(spelled, "file:/")) return spelled;
  char *host = nullptr;
  const std::unique_ptr<char, decltype(&g_free)> path(g_filename_from_uri(spelled.c_str(), &host, nullptr),
                                                      g_free);
  const std::unique_ptr<char, decltype(&g_free)> host_owner(host, g_free);
  if (!path || (host && g_ascii_strcasecmp(host, "localhost") != 0))
    throw invalid("'" + spelled + "' is no URI of a file on this machine, as file:///home/user/model is");
  return path.get();
}

}  // namespace wan
