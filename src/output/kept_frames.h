// SPDX-License-Identifier: LGPL-2.1-or-later
//
// What clips leave in the model for the next one of their stream.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>

namespace wan {

class KeptFrames {
 public:
  /// Undefined where the stream has none.
  at::Tensor find(uint64_t stream) const;
  /// The same, and they are gone then.
  at::Tensor take(uint64_t stream);
  /// In place of what the stream had. frames: or what is to be known of them; an undefined tensor is nothing
  /// to keep.
  void keep(uint64_t stream, at::Tensor frames);

 private:
  struct Kept {
    uint64_t stream;
    at::Tensor frames;
  };

  std::deque<Kept> kept_;  // the newest last
};

}  // namespace wan
