// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The threads of the devices that a model runs on.
#pragma once

#include <c10/core/Device.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/meeting.h"
#include "parallel/sequence_group.h"

namespace wan {

/// A rank for each device. The first is whoever calls run(); the others have a thread each.
class RankThreads {
 public:
  /// devices: all of one type. Throws wan::Error (WAN_OUT_OF_MEMORY) where the system starts no more threads.
  explicit RankThreads(std::vector<at::Device> devices);
  RankThreads(const RankThreads &) = delete;
  RankThreads &operator=(const RankThreads &) = delete;

  int64_t count() const { return static_cast<int64_t>(devices_.size()); }
  const std::vector<at::Device> &devices() const { return devices_; }

  /// Calls function(rank) in all ranks at once, with their devices current, and returns when all are done.
  /// Throws what the first of them to fail has thrown; no rank waits in a SequenceGroup after that. One call
  /// at a time.
  void run(const std::function<void(int64_t rank)> &function);
  /// The memberships of `ranks` ranks from `first` on, in order.
  std::vector<SequenceGroup> group(int64_t first, int64_t ranks) const;

 private:
  void work(int64_t rank, const std::stop_token &stop);
  void call(const std::function<void(int64_t rank)> &function, int64_t rank);
  void fail(std::exception_ptr error);

  const std::vector<at::Device> devices_;
  const std::shared_ptr<RankFailure> failure_;
  const Links links_;
  std::mutex mutex_;  // guards all that follows
  std::condition_variable_any changed_;
  const std::function<void(int64_t rank)> *function_ = nullptr;
  uint64_t runs_ = 0;
  int64_t working_ = 0;  // threads
  std::exception_ptr error_;
  std::vector<std::jthread> threads_;  // last: they use all of the above, and are stopped first
};

}  // namespace wan
