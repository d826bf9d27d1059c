// SPDX-License-Identifier: LGPL-2.1-or-later
//
// The convolutions of the Wan VAE, each together with what follows it: the bias, a residual, and
// the RMS norm and SiLU that make the next convolution's input. Here is where a device gets its own
// implementation. Activations are channels-last, [T, H, W, C] and contiguous, in float32 or bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace wan {

/// Frames of one video, the oldest first, each [H, W, C] and contiguous.
using Frames = std::vector<at::Tensor>;

/// The weights of a convolution in the form that its implementation reads. Made once, when a model is loaded,
/// from the checkpoint's tensors in float32; the convolution computes in `dtype`.
struct ConvWeight {
  /// For causal_conv3d() and double_frames_conv(). weight: [Cout, Cin, kt, k, k], bias: [Cout].
  static ConvWeight causal(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype);
  /// For upsample_conv2d(). weight: [Cout, Cin, 3, 3], bias: [Cout].
  static ConvWeight upsample(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype);
  /// For downsample_conv2d(). weight: [Cout, Cin, 3, 3], bias: [Cout].
  static ConvWeight downsample(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype);
  /// For halve_frames_conv(). weight: [Cout, Cin, 3, 1, 1], bias: [Cout].
  static ConvWeight halve_frames(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype);

  /// causal: [Cout, kt * Cin, k, k], the channels of the oldest frame first.
  /// upsample: [2, 2, Cout, Cin, 2, 2], a convolution for each of the 2x2 pixels that a pixel becomes.
  /// downsample: [Cout, Cin, 3, 3]. halve_frames: [Cout, 3 * Cin], the channels of the oldest frame first.
  at::Tensor weight = {};
  at::Tensor bias = {};  // [Cout]
  // Other forms, see ops/cpu/winograd.h and ops/packed_conv.h.
  at::Tensor winograd = {};  // in place of `weight`, where defined
  bool packed = false;       // what the form of `weight` and `bias` is
};

/// Whether convolutions of so many channels have kernels that do all that follows them, too.
bool has_fused_conv(int64_t channels, at::ScalarType dtype, at::Device device);

/// What follows a convolution.
struct Epilogue {
  at::Tensor residual = {};    // is added; of the output's size, which may be put in its place; or undefined
  at::Tensor next_gamma = {};  // [Cout], float32: SiLU(RMS_norm(out) * gamma) is wanted, too
  bool keep_out = true;        // whether the output before that norm is wanted
  // The output is float32, and not rounded to a narrower dtype before; on GPUs only that of colours is not.
  bool float32 = false;
};

/// What an epilogue asks for; the rest is undefined.
struct ConvResult {
  at::Tensor out, activated;
};

/// The last num_outputs frames of a 3x3x3 convolution, padded with zeros in space and causal in time.
/// frames: these frames' inputs, and before them 2 frames of history or less; what is missing is zero.
/// out: [num_outputs, H, W, Cout].
ConvResult causal_conv3d(const Frames &frames, int64_t num_outputs, const ConvWeight &weight,
                         const Epilogue &epilogue);

/// Each pixel becomes 2x2 of the same value, then a 3x3 convolution padded with zeros. x: [T, H, W, Cin],
/// out: [T, 2 H, 2 W, Cout]. Computed at the smaller size: 4/9 of the operations, and the doubled image never
/// is.
ConvResult upsample_conv2d(const at::Tensor &x, const ConvWeight &weight, const Epilogue &epilogue);

/// A causal 3x1x1 convolution to 2 C channels, whose halves are two successive frames. frames: as for
/// causal_conv3d(). Returns [2 num_inputs, H, W, C].
at::Tensor double_frames_conv(const Frames &frames, int64_t num_inputs, const ConvWeight &weight);

/// A 3x3 convolution of every second pixel and row, padded with zeros on the right and at the bottom. x: [T,
/// 2 H, 2 W, Cin], out: [T, H, W, Cout].
ConvResult downsample_conv2d(const at::Tensor &x, const ConvWeight &weight, const Epilogue &epilogue);

/// A 3x1x1 convolution without padding: three frames become one. out: [1, H, W, Cout].
ConvResult halve_frames_conv(const Frames &frames, const ConvWeight &weight, const Epilogue &epilogue);

}  // namespace wan
