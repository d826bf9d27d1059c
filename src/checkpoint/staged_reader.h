// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The way of weights from files to a GPU: several threads read ahead into page-locked memory, and a stream of
// its own copies from there. Either the disk or the bus is busy throughout.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "checkpoint/tensor_file.h"

namespace wan {

class StagedReader {
 public:
  /// A tensor of a file; both must outlive the reader.
  struct Range {
    const TensorFile *file;
    const TensorEntry *entry;
  };

  /// Begins to read, in this order, as far ahead as the staging memory goes. Throws wan::Error
  /// (WAN_OUT_OF_MEMORY) where the system starts no thread for it.
  StagedReader(at::Device device, const std::vector<Range> &ranges);
  StagedReader(const StagedReader &) = delete;
  StagedReader &operator=(const StagedReader &) = delete;

  /// Whether read() would give this tensor.
  bool is_next(const TensorEntry &entry) const;
  /// The next tensor's bytes as uint8 on the device, ready for what is queued on the current stream from now
  /// on. Throws wan::Error (WAN_INVALID) where its file cannot be read to its end.
  at::Tensor read();

 private:
  struct Buffer {
    at::Tensor memory;
    c10::Event copied;  // what was in it is on the device
  };
  struct Piece {
    Range range;
    uint64_t begin;  // in the file's data section
    size_t size;
    Buffer *buffer = nullptr;
    bool is_read = false;
    std::exception_ptr failure = nullptr;
  };

  void read_ahead(const std::stop_token &stop);
  Piece &wait_for(size_t piece);
  void copy(Piece &piece, const at::Tensor &out);
  void record(c10::Event &event, const c10::Stream &stream) const;

  const at::Device device_;
  const c10::Stream copy_stream_;
  c10::Event order_;  // between the current stream and the copies
  std::deque<Buffer> buffers_;
  std::vector<Piece> pieces_;
  size_t next_copied_ = 0;

  std::mutex mutex_;
  std::condition_variable_any room_;
  std::condition_variable was_read_;
  std::deque<Buffer *> free_;  // the one whose copy was queued first is at the front
  size_t next_read_ = 0;
  std::vector<std::jthread> threads_;  // last: they use all of the above, and end first
};

}  // namespace wan
