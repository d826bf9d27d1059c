// SPDX-License-Identifier: LGPL-2.1-or-later
#include "parallel/sequence_group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "parallel/meeting.h"

namespace wan {

namespace {

using Tensors = std::vector<at::Tensor>;
using Copies = std::vector<TensorCopy>;

at::Tensor part(const at::Tensor &x, int64_t dim, const Share &share) {
  return x.narrow(dim, share.first, share.count);
}

/// x: [B, tokens, heads, head_dim], with the same bytes in elements of 16 where head_dim has whole ones. A
/// GPU copies parts that are not contiguous element by element, and small ones, above all to another GPU, are
/// slow.
at::Tensor in_large_elements(const at::Tensor &x) {
  constexpr at::ScalarType kLarge = at::kComplexDouble;
  const bool whole = x.size(-1) * x.element_size() % static_cast<int64_t>(at::elementSize(kLarge)) == 0;
  return whole ? x.contiguous().view(kLarge) : x;
}

}  // namespace

SequenceGroup::SequenceGroup(std::shared_ptr<Meeting> meeting, int64_t rank)
    : meeting_(std::move(meeting)), ranks_(meeting_->ranks()), rank_(rank) {}

const at::Device &SequenceGroup::device() const {
  return meeting_->device(rank_);
}

bool SequenceGroup::all_devices(const std::function<bool(at::Device)> &holds) const {
  for (int64_t rank = 0; meeting_ && rank < ranks_; ++rank)
    if (!holds(meeting_->device(rank))) return false;
  return true;
}

void SequenceGroup::check() const {
  if (meeting_) meeting_->check();
}

Share SequenceGroup::share(int64_t count, int64_t rank) const {
  const int64_t least = count / ranks_, more = count % ranks_;
  return {rank * least + std::min(rank, more), least + (rank < more ? 1 : 0)};
}

at::Tensor SequenceGroup::to_tokens(const at::Tensor &own_heads, int64_t heads) const {
  if (ranks_ == 1) return own_heads;
  const at::Tensor x = in_large_elements(own_heads);
  const int64_t tokens = x.size(1);
  Tensors shown;
  for (int64_t peer = 0; peer < ranks_; ++peer)
    shown.push_back(peer == rank_ ? at::Tensor() : part(x, 1, share(tokens, peer)).contiguous());
  at::Tensor all = at::empty({x.size(0), own_share(tokens).count, heads, x.size(3)}, x.options());
  part(all, 2, own_share(heads)).copy_(part(x, 1, own_share(tokens)));
  Handover handover(*this);
  handover.exchange(std::move(shown), [&](int64_t peer, const Tensors &pieces) -> Copies {
    return {{pieces[static_cast<size_t>(rank_)], part(all, 2, share(heads, peer))}};
  });
  handover.wait();
  return all.view(own_heads.scalar_type());
}

at::Tensor SequenceGroup::gather(const at::Tensor &x, int64_t tokens) const {
  if (ranks_ == 1) return x;
  at::Tensor all;
  if (rank_ == 0) {
    all = at::empty({x.size(0), tokens, x.size(2)}, x.options());
    part(all, 1, own_share(tokens)).copy_(x);
  }
  Handover handover(*this);
  handover.exchange({x}, [&](int64_t peer, const Tensors &pieces) -> Copies {
    if (rank_ != 0) return {};
    return {{pieces[0], part(all, 1, share(tokens, peer))}};
  });
  handover.wait();
  return all;
}

at::Tensor SequenceGroup::mean(const at::Tensor &x) const {
  if (ranks_ == 1) return x;
  Tensors all(static_cast<size_t>(ranks_));
  all[static_cast<size_t>(rank_)] = x;
  Handover handover(*this);
  handover.exchange({x}, [&](int64_t peer, const Tensors &shown) -> Copies {
    at::Tensor &copy = all[static_cast<size_t>(peer)] = at::empty_like(x);
    return {{shown[0], copy}};
  });
  handover.wait();
  return at::stack(all).mean(0);
}

std::vector<at::Tensor> SequenceGroup::broadcast(const std::vector<at::Tensor> &first_ranks) const {
  if (ranks_ == 1) return first_ranks;
  Tensors copies;
  Handover handover(*this);
  handover.exchange(rank_ == 0 ? first_ranks : Tensors(), [&](int64_t peer, const Tensors &shown) {
    Copies all;
    if (peer != 0) return all;
    for (const at::Tensor &tensor : shown)
      all.push_back({tensor, copies.emplace_back(at::empty_like(tensor, tensor.options().device(device())))});
    return all;
  });
  handover.wait();
  return rank_ == 0 ? first_ranks : copies;
}

Handover::~Handover() {
  if (under_way_) group_.meeting_->wait_after_failure(group_.rank_);
}

void Handover::exchange(Tensors own, const std::function<Copies(int64_t peer, const Tensors &shown)> &take) {
  under_way_ = true;
  kept_.push_back(group_.meeting_->exchange(group_.rank_, std::move(own), take));
}

void Handover::wait() {
  if (!under_way_) return;
  group_.meeting_->wait(group_.rank_);
  under_way_ = false;
  kept_.clear();
}

/// What goes to another rank is made contiguous, so that it is one copy from GPU to GPU.
at::Tensor Handover::to_heads(const at::Tensor &own_tokens, int64_t tokens) {
  const int64_t ranks = group_.ranks(), rank = group_.rank(), heads = own_tokens.size(2);
  if (ranks == 1) return own_tokens;
  const at::Tensor x = in_large_elements(own_tokens);
  Tensors shown;
  for (int64_t peer = 0; peer < ranks; ++peer)
    shown.push_back(peer == rank ? at::Tensor() : part(x, 2, group_.share(heads, peer)).contiguous());
  at::Tensor all = at::empty({x.size(0), tokens, group_.own_share(heads).count, x.size(3)}, x.options());
  part(all, 1, group_.own_share(tokens)).copy_(part(x, 2, group_.own_share(heads)));
  kept_.push_back({all});
  exchange(std::move(shown), [&](int64_t peer, const Tensors &pieces) -> Copies {
    return {{pieces[static_cast<size_t>(rank)], part(all, 1, group_.share(tokens, peer))}};
  });
  return all.view(own_tokens.scalar_type());
}

}  // namespace wan
