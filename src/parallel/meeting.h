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

/// Of one group. On GPUs the host waits only for the other threads, never for a GPU: copies are queued on a
/// stream of the sending GPU for each pair of ranks, and events see to it that they come after what made the
/// tensor, and before its memory is used again.
class Meeting {
 public:
  /// devices: of its ranks, all of one type.
  Meeting(std::shared_ptr<RankFailure> failure, std::vector<at::Device> devices);

  int64_t ranks() const { return static_cast<int64_t>(places_.size()); }
  const at::Device &device(int64_t rank) const { return place(rank).device; }

  /// Throws PeerFailed where a rank has failed.
  void check() const;

  using Tensors = std::vector<at::Tensor>;
  using Take = std::function<void(int64_t peer, const Tensors &shown)>;
  /// See SequenceGroup::exchange(). Throws PeerFailed.
  void exchange(int64_t rank, Tensors own, const Take &take);

 private:
  /// From another rank to the one whose Place it is in; none on the CPU.
  struct Link {
    c10::Stream stream;  // of the sender's device
    c10::Event copied;
  };
  struct Place {
    explicit Place(at::Device device) : device(device), shown(device.type()) {}

    at::Device device;
    Tensors tensors;
    c10::Event shown;
    std::vector<std::optional<Link>> links;  // from each rank
  };

  const Place &place(int64_t rank) const { return places_[static_cast<size_t>(rank)]; }
  Place &place(int64_t rank) { return places_[static_cast<size_t>(rank)]; }
  void make_links();
  /// Returns when all ranks have come.
  void arrive();
  void take_from(int64_t peer, Place &own, const Take &take);

  const std::shared_ptr<RankFailure> failure_;
  std::vector<Place> places_;
  int64_t arrived_ = 0;  // guarded, as the next one, by failure_->mutex
  uint64_t round_ = 0;
};

}  // namespace wan
