// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/conv.h"

#include <ATen/ATen.h>

#include "ops/cpu/winograd.h"
#include "ops/packed_conv.h"
#include "ops/rms_norm.h"

namespace wan {

namespace {

constexpr size_t kKernelTime = 3;

/// The same tensor, its second dimension last in memory.
at::Tensor channels_last(const at::Tensor &weight) {
  return weight.movedim(-3, -1).contiguous().movedim(-1, -3);
}

/// The frames that output frame t, of the last num_outputs, sees: kKernelTime, or less at a video's start.
at::TensorList window(const Frames &frames, int64_t num_outputs, int64_t t) {
  const size_t end = frames.size() - static_cast<size_t>(num_outputs - 1 - t);
  const size_t count = std::min(kKernelTime, end);
  return at::TensorList(frames).slice(end - count, count);
}

/// The frames with their channels side by side: [H, W, frames * C].
at::Tensor side_by_side(at::TensorList frames) {
  return frames.size() == 1 ? frames[0] : at::cat(frames, -1);
}

/// Of the weights [., kt * Cin, ...], the taps of the frames that a window of so many channels holds.
at::Tensor taps(const at::Tensor &weight, int64_t channels) {
  return weight.narrow(1, weight.size(1) - channels, channels);
}

/// x: [T, H, W, Cin]. Returns [T, H, W, Cout], of every so many pixels and rows.
at::Tensor conv2d(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias, int64_t padding,
                  int64_t stride = 1) {
  return at::conv2d(x.permute({0, 3, 1, 2}), weight, bias, stride, padding)
      .permute({0, 2, 3, 1})
      .contiguous();
}

/// One output frame. Returns [H, W, Cout].
at::Tensor conv_window(at::TensorList frames, const ConvWeight &weight, at::ScalarType dtype) {
  const at::Tensor x = side_by_side(frames).to(dtype);
  return conv2d(x.unsqueeze(0), taps(weight.weight, x.size(-1)).to(dtype), weight.bias.to(dtype),
                weight.weight.size(-1) / 2)[0];
}

at::Tensor winograd_window(at::TensorList frames, const ConvWeight &weight) {
  const int64_t channels = frames[0].size(-1) * static_cast<int64_t>(frames.size());
  at::Tensor out =
      at::empty({frames[0].size(0), frames[0].size(1), weight.bias.size(0)}, frames[0].options());
  winograd_conv2d(frames, taps(weight.winograd, channels), weight.bias, out);
  return out;
}

at::Tensor stack(const Frames &frames) {
  return frames.size() == 1 ? frames[0].unsqueeze(0) : at::stack(frames);
}

ConvResult finish(at::Tensor out, const Epilogue &epilogue) {
  if (epilogue.residual.defined()) out.add_(epilogue.residual);
  ConvResult result;
  if (epilogue.next_gamma.defined()) result.activated = rms_norm(out, epilogue.next_gamma, /*silu=*/true);
  if (epilogue.keep_out) result.out = std::move(out);
  return result;
}

}  // namespace

ConvWeight ConvWeight::causal(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype) {
  const bool in_space = weight.size(-1) > 1;
  if (packed::serves(weight, in_space ? ConvKind::kCausal3x3x3 : ConvKind::kDoubleFrames, dtype))
    return packed::pack(in_space ? weight.unsqueeze(0) : weight.unflatten(0, {2, -1}), bias);
  const at::Tensor joined = weight.transpose(1, 2).flatten(1, 2);
  if (weight.is_cpu() && dtype == at::kFloat && in_space && winograd_pays(weight.size(1), weight.size(0)))
    return {.bias = bias, .winograd = winograd_weight(joined)};
  return {.weight = channels_last(joined).to(dtype), .bias = bias.to(dtype)};
}

ConvWeight ConvWeight::upsample(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype) {
  // The two rows of pixels that a row becomes see two rows each: the upper one the row before with the first
  // tap and its own with both others, the lower one its own with the first two taps and the next with the
  // last.
  const auto pair = [](const at::Tensor &w, int64_t dim) {
    const auto tap = [&](int64_t i) { return w.select(dim, i); };
    return at::stack({at::stack({tap(0), tap(1) + tap(2)}, dim), at::stack({tap(0) + tap(1), tap(2)}, dim)});
  };
  const at::Tensor phases = pair(pair(weight, -2), -1).transpose(0, 1);
  if (packed::serves(weight, ConvKind::kUpsample2x, dtype))
    return packed::pack(phases.flatten(0, 1).unsqueeze(3), bias);
  return {.weight = channels_last(phases).to(dtype), .bias = bias.to(dtype)};
}

ConvWeight ConvWeight::downsample(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype) {
  return {.weight = channels_last(weight).to(dtype), .bias = bias.to(dtype)};
}

ConvWeight ConvWeight::halve_frames(const at::Tensor &weight, const at::Tensor &bias, at::ScalarType dtype) {
  return {.weight = weight.flatten(2).transpose(1, 2).flatten(1).to(dtype), .bias = bias.to(dtype)};
}

bool has_fused_conv(int64_t channels, at::ScalarType dtype, at::Device device) {
  return packed::takes(channels, channels, dtype, device);
}

ConvResult causal_conv3d(const Frames &frames, int64_t num_outputs, const ConvWeight &weight,
                         const Epilogue &epilogue) {
  if (weight.packed) {
    if (!packed::gives_colours(weight)) {
      ConvResult result = packed::conv(ConvKind::kCausal3x3x3, frames, num_outputs, weight, epilogue);
      if (epilogue.float32 && result.out.defined()) result.out = result.out.to(at::kFloat);
      return result;
    }
    const at::Tensor out = packed::conv(ConvKind::kCausal3x3x3, frames, num_outputs, weight, {}).out;
    return finish(epilogue.float32 ? out : out.to(frames[0].scalar_type()).contiguous(), epilogue);
  }
  const at::ScalarType dtype = epilogue.float32 ? at::kFloat : weight.bias.scalar_type();
  Frames out;
  for (int64_t t = 0; t < num_outputs; ++t) {
    const at::TensorList seen = window(frames, num_outputs, t);
    out.push_back(weight.winograd.defined() ? winograd_window(seen, weight)
                                            : conv_window(seen, weight, dtype));
  }
  return finish(stack(out), epilogue);
}

ConvResult upsample_conv2d(const at::Tensor &x, const ConvWeight &weight, const Epilogue &epilogue) {
  if (weight.packed) return packed::conv(ConvKind::kUpsample2x, x.unbind(0), x.size(0), weight, epilogue);
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2), channels = weight.bias.size(0);
  const at::Tensor out = at::empty({frames, height, 2, width, 2, channels}, x.options());
  for (int64_t row = 0; row < 2; ++row)
    for (int64_t column = 0; column < 2; ++column) {
      // Padded on both sides, of which each of the four needs one.
      const at::Tensor pixels = conv2d(x, weight.weight[row][column], weight.bias, /*padding=*/1);
      out.select(4, column).select(2, row).copy_(pixels.narrow(1, row, height).narrow(2, column, width));
    }
  return finish(out.view({frames, 2 * height, 2 * width, channels}), epilogue);
}

at::Tensor double_frames_conv(const Frames &frames, int64_t num_inputs, const ConvWeight &weight) {
  if (weight.packed) return packed::conv(ConvKind::kDoubleFrames, frames, num_inputs, weight, {}).out;
  Frames out;
  for (int64_t t = 0; t < num_inputs; ++t) {
    const at::Tensor x = side_by_side(window(frames, num_inputs, t));
    const at::Tensor halves =
        at::linear(x, taps(weight.weight, x.size(-1)).flatten(1), weight.bias);  // [H, W, 2 C]
    for (const at::Tensor &half : halves.chunk(2, -1)) out.push_back(half);
  }
  return at::stack(out);
}

ConvResult downsample_conv2d(const at::Tensor &x, const ConvWeight &weight, const Epilogue &epilogue) {
  const at::Tensor padded = at::constant_pad_nd(x, {0, 0, 0, 1, 0, 1});
  return finish(conv2d(padded, weight.weight, weight.bias, /*padding=*/0, /*stride=*/2), epilogue);
}

ConvResult halve_frames_conv(const Frames &frames, const ConvWeight &weight, const Epilogue &epilogue) {
  return finish(at::linear(side_by_side(frames), weight.weight, weight.bias).unsqueeze(0), epilogue);
}

}  // namespace wan
