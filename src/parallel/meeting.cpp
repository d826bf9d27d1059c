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
        to.links.back().emplace(Link{guard.getStreamFromGlobalPool(from.device),
                                     guard.getStreamFromGlobalPool(to.device), c10::Event(to.device.type()),
                                     c10::Event(to.device.type())});
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

/// A copy between GPUs runs on the sender's current stream, between what the receiver's current stream has
/// queued before and after it.
void Meeting::copy(int64_t peer, Place &own, const std::vector<TensorCopy> &copies) {
  if (own.links.empty()) {
    for (const auto &[from, to] : copies) to.copy_(from);
    return;
  }
  Link &link = *own.links[static_cast<size_t>(peer)];
  link.ready.record(compute_stream(own.device));
  link.ready.block(link.to);
  place(peer).shown.block(link.to);
  const c10::StreamGuard sender(link.from), receiver(link.to);
  for (const auto &[from, to] : copies) to.copy_(from);
  link.copied.record(link.to);
}

Meeting::Tensors Meeting::exchange(int64_t rank, Tensors own_tensors, const Take &take) {
  Place &own = place(rank);
  own.tensors = std::move(own_tensors);
  if (!own.links.empty()) own.shown.record(compute_stream(own.device));
  arrive();
  for (int64_t peer = 0; peer < ranks(); ++peer)
    if (peer != rank) copy(peer, own, take(peer, place(peer).tensors));
  arrive();
  return std::exchange(own.tensors, {});
}

void Meeting::wait_for_taken(int64_t rank) {
  for (const std::optional<Link> &link : place(rank).links)
    if (link) link->copied.block(compute_stream(device(rank)));
}

void Meeting::wait(int64_t rank) {
  wait_for_taken(rank);
  if (place(rank).links.empty()) return;
  for (int64_t peer = 0; peer < ranks(); ++peer)
    if (peer != rank)
      place(peer).links[static_cast<size_t>(rank)]->copied.block(compute_stream(device(rank)));
}

}  // namespace wan
