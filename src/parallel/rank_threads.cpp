// SPDX-License-Identifier: LGPL-2.1-or-later
#include "parallel/rank_threads.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <type_traits>
#include <utility>

#include "threads.h"

namespace wan {

RankThreads::RankThreads(std::vector<at::Device> devices)
    : devices_(std::move(devices)), failure_(std::make_shared<RankFailure>()), links_(make_links(devices_)) {
  for (int64_t rank = 1; rank < count(); ++rank)
    threads_.push_back(start_thread([this, rank](const std::stop_token &stop) { work(rank, stop); }));
}

void RankThreads::work(int64_t rank, const std::stop_token &stop) {
  const c10::InferenceMode inference;
  std::unique_lock lock(mutex_);
  for (uint64_t done = 0;; ++done) {
    if (!changed_.wait(lock, stop, [&] { return runs_ != done; })) return;
    const auto &function = *function_;
    lock.unlock();
    call(function, rank);
    lock.lock();
    if (--working_ == 0) changed_.notify_all();
  }
}

void RankThreads::call(const std::function<void(int64_t rank)> &function, int64_t rank) {
  try {
    require_compute_threads();
    const c10::DeviceGuard guard(devices_[static_cast<size_t>(rank)]);
    function(rank);
  } catch (const PeerFailed &) {
    // The peer says why.
  } catch (...) {
    fail(std::current_exception());
  }
}

void RankThreads::fail(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = std::move(error);
  }
  const std::lock_guard lock(failure_->mutex);
  failure_->raised = true;
  failure_->changed.notify_all();
}

void RankThreads::run(const std::function<void(int64_t rank)> &function) {
  if (count() == 1) {
    const c10::DeviceGuard guard(devices_.front());
    return function(0);
  }
  {
    const std::lock_guard lock(failure_->mutex);
    failure_->raised = false;
  }
  std::unique_lock lock(mutex_);
  function_ = &function;
  working_ = count() - 1;
  ++runs_;
  changed_.notify_all();
  lock.unlock();
  call(function, 0);
  lock.lock();
  changed_.wait(lock, [this] { return working_ == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

std::vector<SequenceGroup> RankThreads::group(int64_t first, int64_t ranks) const {
  if (count() == 1) return {SequenceGroup()};
  const auto members_of = [&](const auto &all) {
    return std::decay_t<decltype(all)>(all.begin() + first, all.begin() + first + ranks);
  };
  Links links;
  if (!links_.empty())
    for (const auto &from : members_of(links_)) links.push_back(members_of(from));
  const auto meeting = std::make_shared<Meeting>(failure_, members_of(devices_), std::move(links));
  std::vector<SequenceGroup> members;
  for (int64_t rank = 0; rank < ranks; ++rank) members.emplace_back(meeting, rank);
  return members;
}

}  // namespace wan
