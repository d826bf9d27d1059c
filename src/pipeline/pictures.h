// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The pictures of a clip, from whoever has them.
#pragma once

#include <ATen/core/Tensor.h>

#include "run_context.h"
#include "wan/engine.h"

namespace wan {

/// [H, W, 3] uint8 in host memory; undefined where there is none.
struct Pictures {
  at::Tensor first, last;
};

/// Asks for those that the options promise. Throws wan::Error: WAN_INVALID where a picture is none,
/// WAN_CANCELLED.
Pictures ask_for_pictures(const WanGenerateOptions &options, const RunContext &context);

/// Asks for one alone: [H, W, 3] uint8 in host memory. Throws likewise.
at::Tensor ask_for_picture(WanPictureKind kind, const RunContext &context);

/// A frame, [1, 3, 1, H, W] float32 in [-1, 1], as a picture.
at::Tensor picture_of(const at::Tensor &frame);

}  // namespace wan
