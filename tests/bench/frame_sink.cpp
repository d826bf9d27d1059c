// SPDX-License-Identifier: LGPL-2.1-or-later
#include "frame_sink.h"

#include <glib.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "error.h"

namespace wan::bench {

namespace {

class NullSink : public FrameSink {
 public:
  void take(const uint8_t *, size_t) override {}
};

class FileSink : public FrameSink {
 public:
  FileSink() {
    char *path = nullptr;
    GError *error = nullptr;
    file_ = g_file_open_tmp("wan-bench-XXXXXX", &path, &error);
    if (file_ < 0) throw Error(WAN_INTERNAL, error->message);
    unlink(path);  // it goes with the process
    g_free(path);
  }
  ~FileSink() override { close(file_); }

  void rewind() override {
    if (ftruncate(file_, 0) != 0 || lseek(file_, 0, SEEK_SET) != 0) fail();
  }
  void take(const uint8_t *data, size_t bytes) override {
    while (bytes > 0) {
      const ssize_t written = write(file_, data, bytes);
      if (written < 0) fail();
      data += written;
      bytes -= static_cast<size_t>(written);
    }
  }

 private:
  [[noreturn]] static void fail() {
    throw Error(WAN_INTERNAL, std::string("The temporary file: ") + std::strerror(errno));
  }

  int file_;
};

class HostSink : public FrameSink {
 public:
  explicit HostSink(size_t video_bytes) : video_(video_bytes) {}
  void rewind() override { used_ = 0; }
  void take(const uint8_t *data, size_t bytes) override {
    std::copy_n(data, bytes, video_.begin() + static_cast<std::ptrdiff_t>(used_));
    used_ += bytes;
  }

 private:
  std::vector<uint8_t> video_;
  size_t used_ = 0;
};

}  // namespace

std::unique_ptr<FrameSink> make_sink(const std::string &name, size_t video_bytes) {
  if (name == "null") return std::make_unique<NullSink>();
  if (name == "file") return std::make_unique<FileSink>();
  if (name == "host") return std::make_unique<HostSink>(video_bytes);
  throw invalid("--sink must be null, file or host");
}

void ChecksumSink::rewind() {
  value_ = 0xcbf29ce484222325;
  next_->rewind();
}

void ChecksumSink::take(const uint8_t *data, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, data + i, std::min(sizeof word, bytes - i));
    value_ = (value_ ^ word) * 0x100000001b3;
  }
  next_->take(data, bytes);
}

}  // namespace wan::bench
