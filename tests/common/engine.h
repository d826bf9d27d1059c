// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The engine through its C interface, for tests: errors become exceptions, frames become tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/dice.h"
#include "wan/engine.h"

namespace wan::test {

const WanEngineApi &api();

/// Layout of tightly packed frames of a format.
WanPixelLayout packed_layout(WanPixelFormat format, int32_t width, int32_t height);

struct Failure {
  WanStatus status;
  std::string message;
};

/// The picture, which must stay.
WanPicture picture_of(const at::Tensor &picture);

using Model = std::unique_ptr<WanModel, void (*)(WanModel *)>;

/// Throws Failure.
Model load_model(const WanLoadOptions &options, const WanCallbacks &callbacks = {});
/// The same.
Model load_model(const std::string &directory, const std::string &device, WanDtype dtype = WAN_DTYPE_AUTO,
                 const std::vector<WanLora> &loras = {},
                 WanQuantization quantization = WAN_QUANTIZATION_NONE);

/// What a test wants to hear while a clip is made.
struct Listener {
  std::function<void(const WanProgress &)> progress = [](const WanProgress &) {};
  std::function<bool()> cancelled = [] { return false; };
  /// Returns whether to go on. The frames are given back afterwards.
  std::function<bool(const WanFrames &)> frames = [](const WanFrames &) { return true; };
  std::function<bool()> followed = [] { return false; };
  /// [H, W, 3] uint8, contiguous; it stays until it returns the next one.
  std::function<at::Tensor(WanPictureKind)> picture = [](WanPictureKind) { return at::Tensor(); };
  /// Whether the endless video goes on.
  std::function<bool(WanSection &)> next_section = [](WanSection &) { return true; };
};

/// The embedded model's defaults with a prompt.
WanGenerateOptions tiny_options(WanPixelFormat format = WAN_PIXEL_RGB);

/// Of whoever listens, which must stay.
WanCallbacks callbacks_of(const Listener &listener);

/// Throws Failure.
void generate(const Model &model, const WanGenerateOptions &options, const Listener &listener);

/// Cancels clips at moments that the dice choose, among the first `checks` at which that is asked.
void cancel_clips(const Model &model, const WanGenerateOptions &options, Dice &dice, int clips, int checks);

/// A copy of a chunk in host memory, uint8 [num_frames, layout.size].
at::Tensor pixels_of(const WanFrames &frames, const WanGenerateOptions &options);

/// A whole clip as uint8 [frames, layout.size]. The listener's `frames` is not called.
at::Tensor generate_clip(const Model &model, const WanGenerateOptions &options, Listener listener = {});

}  // namespace wan::test
