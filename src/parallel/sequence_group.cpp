// SPDX-License-Identifier: LGPL-2.1-or-later
#include "parallel/sequence_group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "parallel/meeting.h"

namespace wan {

namespace {

at::Tensor part(const at::Tensor &x, int64_t dim, const Share &share) {
  return x.narrow(dim, share.first, share.count);
}

}  // namespace

SequenceGroup::SequenceGroup(std::shared_ptr<Meeting> meeting, int64_t rank)
    : meeting_(std::move(meeting)), ranks_(meeting_->ranks()), rank_(rank) {}

const at::Device &SequenceGroup::device() const {
  return meeting_->device(rank_);
}

void SequenceGroup::check() const {
  if (meeting_) meeting_->check();
}

Share SequenceGroup::share(int64_t count, int64_t rank) const {
  const int64_t least = count / ranks_, more = count % ranks_;
  return {rank * least + std::min(rank, more), least + (rank < more ? 1 : 0)};
}

void SequenceGroup::exchange(Tensors own,
                             const std::function<void(int64_t peer, const Tensors &shown)> &take) const {
  meeting_->exchange(rank_, std::move(own), take);
}

/// What goes to another rank is made contiguous, so that it is one copy from GPU to GPU.
std::vector<at::Tensor> SequenceGroup::to_heads(std::vector<at::Tensor> each, int64_t tokens) const {
  if (ranks_ == 1) return each;
  Tensors shown, all;
  for (const at::Tensor &x : each) {
    const int64_t heads = x.size(2);
    for (int64_t peer = 0; peer < ranks_; ++peer)
      shown.push_back(peer == rank_ ? at::Tensor() : part(x, 2, share(heads, peer)).contiguous());
    all.push_back(at::empty({x.size(0), tokens, own_share(heads).count, x.size(3)}, x.options()));
    part(all.back(), 1, own_share(tokens)).copy_(part(x, 2, own_share(heads)));
  }
  exchange(std::move(shown), [&](int64_t peer, const Tensors &pieces) {
    for (size_t i = 0; i < all.size(); ++i)
      part(all[i], 1, share(tokens, peer)).copy_(pieces[i * size_t(ranks_) + size_t(rank_)]);
  });
  return all;
}

at::Tensor SequenceGroup::to_tokens(const at::Tensor &x, int64_t heads) const {
  if (ranks_ == 1) return x;
  const int64_t tokens = x.size(1);
  Tensors shown;
  for (int64_t peer = 0; peer < ranks_; ++peer)
    shown.push_back(peer == rank_ ? at::Tensor() : part(x, 1, share(tokens, peer)).contiguous());
  at::Tensor all = at::empty({x.size(0), own_share(tokens).count, heads, x.size(3)}, x.options());
  part(all, 2, own_share(heads)).copy_(part(x, 1, own_share(tokens)));
  exchange(std::move(shown), [&](int64_t peer, const Tensors &pieces) {
    part(all, 2, share(heads, peer)).copy_(pieces[static_cast<size_t>(rank_)]);
  });
  return all;
}

at::Tensor SequenceGroup::gather(const at::Tensor &x, int64_t tokens) const {
  if (ranks_ == 1) return x;
  at::Tensor all;
  if (rank_ == 0) {
    all = at::empty({x.size(0), tokens, x.size(2)}, x.options());
    part(all, 1, own_share(tokens)).copy_(x);
  }
  exchange({x}, [&](int64_t peer, const Tensors &pieces) {
    if (rank_ == 0) part(all, 1, share(tokens, peer)).copy_(pieces[0]);
  });
  return all;
}

at::Tensor SequenceGroup::mean(const at::Tensor &x) const {
  if (ranks_ == 1) return x;
  Tensors all(static_cast<size_t>(ranks_));
  all[static_cast<size_t>(rank_)] = x;
  exchange({x}, [&](int64_t peer, const Tensors &shown) {
    all[static_cast<size_t>(peer)] = at::empty_like(x).copy_(shown[0]);
  });
  return at::stack(all).mean(0);
}

std::vector<at::Tensor> SequenceGroup::broadcast(const std::vector<at::Tensor> &first_ranks) const {
  if (ranks_ == 1) return first_ranks;
  Tensors copies;
  exchange(rank_ == 0 ? first_ranks : Tensors(), [&](int64_t peer, const Tensors &shown) {
    if (peer != 0) return;
    for (const at::Tensor &tensor : shown)
      copies.push_back(at::empty_like(tensor, tensor.options().device(device())).copy_(tensor));
  });
  return rank_ == 0 ? first_ranks : copies;
}

}  // namespace wan
