// SPDX-License-Identifier: LGPL-2.1-or-later
#include "pipeline/model_inputs.h"

#include <ATen/ATen.h>

namespace wan {

at::Tensor ModelInputs::with_clean_frame(const at::Tensor &latents) const {
  if (!clean_frame.defined()) return latents;
  return at::cat({clean_frame, latents.narrow(2, 1, latents.size(2) - 1)}, 2);
}

at::Tensor ModelInputs::of(const at::Tensor &latents) const {
  const at::Tensor x = with_clean_frame(latents);
  return channels.defined() ? at::cat({x, channels}, 1) : x;
}

std::vector<TimeSegment> ModelInputs::times(double timestep, int64_t tokens, int64_t frames) const {
  if (!clean_frame.defined()) return {{0, timestep}};
  std::vector<TimeSegment> segments = {{0, 0.0}};
  if (frames > 1) segments.push_back({tokens / frames, timestep});
  return segments;
}

}  // namespace wan
