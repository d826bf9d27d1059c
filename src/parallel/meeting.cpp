// SPDX-License-Identifier: LGPL-2.1-or-later
#include "parallel/meeting.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/core/StreamGuard.h>

#include <utility>

#include "parallel/sequence_group.h"

namespace wan {

namespace {

/// The one that the calling thread computes on.
c10::Stream compute_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

}  // namespace

Meeting::Meeting(std::shared_ptr<RankFailure> failure, std::vector<at::Device> devices)
    : failure_(std::move(failure)) {
  for (const at::Device device : devices) places_.emplace_back(device);
  if (!devices.front().is_cpu()) make_links();
}

void Meeting::make_links() {
  for (Place &to : places_) {
    const c10::impl::VirtualGuardImpl guard(to.device.type());
    for (const Place &from : places_) {
      to.links.emplace_back();
      if (&from != &to)
        to.links.back().emplace(
            Link{guard.getStreamFromGlobalPool(from.device), c10::Event(from.device.type())});
    }
  }
}

void Meeting::check() const {
  const std::lock_guard lock(failure_->mutex);
  if (failure_->raised) throw PeerFailed();
}

void Meeting::arrive() {
  std::unique_lock lock(failure_->mutex);
  if (failure_->raised) throw PeerFailed();
  if (++arrived_ == ranks()) {
    arrived_ = 0;
    ++round_;
    return failure_->changed.notify_all();
  }
  const uint64_t round = round_;
  failure_->changed.wait(lock, [&] { return round_ != round || failure_->raised; });
  if (round_ != round) return;
  --arrived_;
  throw PeerFailed();
}

void Meeting::take_from(int64_t peer, Place &own, const Take &take) {
  const Place &from = place(peer);
  if (own.links.empty()) return take(peer, from.tensors);
  Link &link = *own.links[static_cast<size_t>(peer)];
  const c10::StreamGuard guard(link.stream);
  from.shown.block(link.stream);
  take(peer, from.tensors);
  link.copied.record(link.stream);
}

void Meeting::exchange(int64_t rank, Tensors own_tensors, const Take &take) {
  Place &own = place(rank);
  own.tensors = std::move(own_tensors);
  const bool queues = !own.links.empty();
  if (queues) own.shown.record(compute_stream(own.device));
  arrive();
  for (int64_t peer = 0; peer < ranks(); ++peer)
    if (peer != rank) take_from(peer, own, take);
  arrive();
  if (queues)
    for (int64_t peer = 0; peer < ranks(); ++peer)
      if (peer != rank)
        place(peer).links[static_cast<size_t>(rank)]->copied.block(compute_stream(own.device));
  own.tensors.clear();
}

}  // namespace wan
