// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where decoded frames end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace wan::bench {

class FrameSink {
 public:
  virtual ~FrameSink() = default;
  /// A new video begins: called before its time starts.
  virtual void rewind() {}
  virtual void take(const uint8_t *data, size_t bytes) = 0;
};

/// null: drops the frames; file: writes them to a temporary file; host: copies them into one buffer for the
/// whole video. Throws wan::Error (WAN_INVALID) for another name.
std::unique_ptr<FrameSink> make_sink(const std::string &name, size_t video_bytes);

/// Hands frames on and sums them up (FNV-1a over words of 64 bits).
class ChecksumSink : public FrameSink {
 public:
  explicit ChecksumSink(std::unique_ptr<FrameSink> next) : next_(std::move(next)) {}
  void rewind() override;
  void take(const uint8_t *data, size_t bytes) override;
  uint64_t value() const { return value_; }

 private:
  const std::unique_ptr<FrameSink> next_;
  uint64_t value_ = 0;
};

}  // namespace wan::bench
