// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Where the threads of a group wait for each other and show each other tensors.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace wan {

/// What ranks that run at the same time have in common: where one of them fails, none waits any more.
struct RankFailure {
  std::mutex mutex;
  std::condition_variable changed;
  bool raised = false;  // guarded by mutex
};

struct TensorCopy {
  at::Tensor from, to;
};

/// What copies from one GPU to another are queued on, beside what the two compute.
struct Link {
  c10::Stream from, to;  // of the two devices
};
/// By the receiving rank and the sending one; empty on the CPU.
using Links = std::vector<std::vector<std::optional<Link>>>;
Links make_links(const std::vector<at::Device> &devices);

/// Of one group. On GPUs the host waits only for the other threads, never for a GPU: events see to it that
/// copies come after what made the tensor, and before its memory is used again.
class Meeting {
 public:
  /// devices: of its ranks, all of one type; links: between these.
  Meeting(std::shared_ptr<RankFailure> failure, std::vector<at::Device> devices, Links links);
  ~Meeting();
  Meeting(const Meeting &) = delete;
  Meeting &operator=(const Meeting &) = delete;

  int64_t ranks() const { return static_cast<int64_t>(places_.size()); }
  const at::Device &device(int64_t rank) const { return place(rank).device; }

  /// Throws PeerFailed where a rank has failed.
  void check() const;

  using Tensors = std::vector<at::Tensor>;
  using Take = std::function<std::vector<TensorCopy>(int64_t peer, const Tensors &shown)>;
  /// Shows `own` to the other ranks, and takes from each of them what take() says; `to` is new memory of this
  /// rank's device. Copies are under way when it returns: until wait(), `to` is not to be read, and what is
  /// returned, which is `own`, is to be kept and not to change. Throws PeerFailed.
  Tensors exchange(int64_t rank, Tensors own, const Take &take);
  /// The rank's computing from here on comes after all copies from it and to it that are queued.
  void wait(int64_t rank) const;
  /// The same after a failure. A GPU that has failed says so when it is next asked for something.
  void wait_after_failure(int64_t rank) const noexcept;

 private:
  struct Place {
    explicit Place(at::Device device) : device(device), shown(device.type()) {}

    at::Device device;
    Tensors tensors;  // after a failure, until the next exchange: peers may still copy from them
    c10::Event shown;
  };

  const Place &place(int64_t rank) const { return places_[static_cast<size_t>(rank)]; }
  Place &place(int64_t rank) { return places_[static_cast<size_t>(rank)]; }
  const Link &link(int64_t to, int64_t from) const;
  /// Returns when all ranks have come.
  void arrive();
  void copy(int64_t rank, int64_t peer, const std::vector<TensorCopy> &copies);

  const std::shared_ptr<RankFailure> failure_;
  const Links links_;
  std::vector<Place> places_;
  int64_t arrived_ = 0;  // guarded, as the next one, by failure_->mutex
  uint64_t round_ = 0;
};

}  // namespace wan
