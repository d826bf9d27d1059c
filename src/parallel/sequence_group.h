// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Ranks that compute one sequence of tokens together (DeepSpeed-Ulysses,
// https://arxiv.org/abs/2309.14509): each has some of the tokens, and in self-attention all tokens of some of
// the heads. A rank is a thread with a device (RankThreads); tensors are handed from thread to thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace wan {

class Meeting;
struct TensorCopy;

/// Of tokens or heads that are divided among ranks.
struct Share {
  int64_t first, count;
};

/// Thrown in ranks that would wait for one that has failed, which alone can say why.
struct PeerFailed {};

/// A rank's membership in a group. All ranks of a group call the same operations in the same order; each
/// throws PeerFailed where another rank has failed.
class SequenceGroup {
 public:
  /// One rank alone: nothing is exchanged, and every operation returns what it is given.
  SequenceGroup() = default;
  SequenceGroup(std::shared_ptr<Meeting> meeting, int64_t rank);

  int64_t ranks() const { return ranks_; }
  int64_t rank() const { return rank_; }
  /// A rank's part of `count` tokens or heads. Where these do not divide, the first ranks have one more.
  Share share(int64_t count, int64_t rank) const;
  Share own_share(int64_t count) const { return share(count, rank_); }

  /// Whether it holds for the devices of all ranks: what they decide alike may depend on these alone.
  bool all_devices(const std::function<bool(at::Device)> &holds) const;
  /// Throws PeerFailed where a rank has failed, also one outside of the group that runs at the same time.
  void check() const;
  /// The way back from Handover::to_heads(). own_heads: [B, tokens, own heads, head_dim]. Returns [B, own
  /// tokens, heads, head_dim].
  at::Tensor to_tokens(const at::Tensor &own_heads, int64_t heads) const;
  /// x: [B, own tokens, C]. Returns [B, tokens, C] on the first rank, and an undefined tensor on the others.
  at::Tensor gather(const at::Tensor &x, int64_t tokens) const;
  /// The mean over the ranks, alike on all of them to the last bit, so that what is decided by it is.
  at::Tensor mean(const at::Tensor &x) const;
  /// What the first rank gives: copies on the devices of the others, which may give anything.
  std::vector<at::Tensor> broadcast(const std::vector<at::Tensor> &first_ranks) const;

 private:
  friend class Handover;

  const at::Device &device() const;

  std::shared_ptr<Meeting> meeting_;
  int64_t ranks_ = 1, rank_ = 0;
};

/// Tensors that are handed from rank to rank while the calling one computes what is handed over next.
class Handover {
 public:
  explicit Handover(const SequenceGroup &group) : group_(group) {}
  Handover(const Handover &) = delete;
  Handover &operator=(const Handover &) = delete;
  /// Where an error has come before wait(), as wait().
  ~Handover();

  /// own_tokens: [B, own tokens, heads, head_dim], which must not change. Returns [B, tokens, own heads,
  /// head_dim], which is not to be read before wait().
  at::Tensor to_heads(const at::Tensor &own_tokens, int64_t tokens);
  /// What is computed from here on comes after all that was handed over.
  void wait();

 private:
  friend class SequenceGroup;
  using Tensors = std::vector<at::Tensor>;

  /// Shows `own` to the other ranks, and copies from each of them what take(peer, what it shows) says.
  void exchange(Tensors own,
                const std::function<std::vector<TensorCopy>(int64_t peer, const Tensors &shown)> &take);

  const SequenceGroup &group_;
  bool under_way_ = false;
  std::vector<Tensors> kept_;  // while it is under way
};

}  // namespace wan
