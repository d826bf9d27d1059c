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

/// What is queued on a stream from here on comes after what is queued on the other one.
void queue_after(const c10::Stream &stream, const c10::Stream &other) {
  c10::Event event(other.device_type());
  event.record(other);
  event.block(stream);
}

}  // namespace

Links make_links(const std::vector<at::Device> &devices) {
  if (devices.front().is_cpu()) return {};
  const c10::impl::VirtualGuardImpl guard(devices.front().type());
  Links links(devices.size(), std::vector<std::optional<Link>>(devices.size()));
  for (size_t to = 0; to < devices.size(); ++to)
    for (size_t from = 0; from < devices.size(); ++from)
      if (to != from)
        links[to][from].emplace(
            Link{guard.getStreamFromGlobalPool(devices[from]), guard.getStreamFromGlobalPool(devices[to])});
  return links;
}

Meeting::Meeting(std::shared_ptr<RankFailure> failure, std::vector<at::Device> devices, Links links)
    : failure_(std::move(failure)), links_(std::move(links)) {
  for (const at::Device device : devices) places_.emplace_back(device);
}

Meeting::~Meeting() {
  for (int64_t rank = 0; rank < ranks(); ++rank)
    if (!place(rank).tensors.empty()) wait_after_failure(rank);
}

const Link &Meeting::link(int64_t to, int64_t from) const {
  return *links_[static_cast<size_t>(to)][static_cast<size_t>(from)];
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
void Meeting::copy(int64_t rank, int64_t peer, const std::vector<TensorCopy> &copies) {
  if (copies.empty()) return;
  if (links_.empty()) {
    for (const auto &[from, to] : copies) to.copy_(from);
    return;
  }
  const Link &streams = link(rank, peer);
  queue_after(streams.to, compute_stream(device(rank)));
  for (const c10::Stream &stream : {streams.from, streams.to}) place(peer).shown.block(stream);
  const c10::StreamGuard sender(streams.from), receiver(streams.to);
  for (const auto &[from, to] : copies) to.copy_(from);
}

Meeting::Tensors Meeting::exchange(int64_t rank, Tensors own_tensors, const Take &take) {
  Place &own = place(rank);
  if (!own.tensors.empty()) wait(rank);  // the last exchange has failed
  own.tensors = std::move(own_tensors);
  if (!links_.empty()) own.shown.record(compute_stream(own.device));
  arrive();
  for (int64_t peer = 0; peer < ranks(); ++peer)
    if (peer != rank) copy(rank, peer, take(peer, place(peer).tensors));
  arrive();
  return std::exchange(own.tensors, {});
}

void Meeting::wait(int64_t rank) const {
  if (links_.empty()) return;
  const c10::Stream computing = compute_stream(device(rank));
  for (int64_t peer = 0; peer < ranks(); ++peer) {
    if (peer == rank) continue;
    queue_after(computing, link(rank, peer).to);
    queue_after(computing, link(peer, rank).to);
  }
}

void Meeting::wait_after_failure(int64_t rank) const noexcept {
  try {
    wait(rank);
  } catch (const c10::Error &) {
  }
}

}  // namespace wan
