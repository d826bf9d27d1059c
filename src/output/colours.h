// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The colours of a film, which drift from clip to clip: what each clip makes of the frame before is a little
// brighter or darker, paler or harsher.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace wan {

/// Mean and deviation of each channel, over all frames that it is given. The host does not wait.
class Colours {
 public:
  /// frames: [1, 3, T, H, W] float32.
  void add(const at::Tensor &frames);
  /// [2, 3] float64, of at least one frame: means, then deviations.
  at::Tensor statistics() const;

 private:
  at::Tensor sum_, squares_;  // [3] float64
  int64_t count_ = 0;         // of pixels
};

/// The frame, [1, 3, T, H, W] in [-1, 1], with its channels' means and deviations moved towards `reference`
/// (Colours::statistics()): by `strength` of the way, from 0 to 1. A deviation at most halves or doubles, for
/// where more is missing it is another picture.
at::Tensor with_colours(const at::Tensor &frame, const at::Tensor &reference, double strength);

}  // namespace wan
