// SPDX-License-Identifier: LGPL-2.1-or-later
#include "ops/packed_conv.h"

#include <ATen/ATen.h>

#include "ops/kernels.h"

namespace wan::packed {

bool takes(int64_t in, int64_t out, at::ScalarType dtype, at::Device device) {
  return device.is_cuda() && dtype == at::kBFloat16 && takes_channels(in, out);
}

bool serves(const at::Tensor &weight, ConvKind kind, at::ScalarType dtype) {
  const int64_t out = kind == ConvKind::kDoubleFrames ? weight.size(0) / 2 : weight.size(0);
  const bool colours = kind == ConvKind::kCausal3x3x3 && out == 3;
  return takes(weight.size(1), colours ? kTileChannels[0] : out, dtype, weight.device());
}

ConvWeight pack(const at::Tensor &weight, const at::Tensor &bias) {
  const int64_t padding = weight.size(1) == 3 ? kColourChannels - 3 : 0;
  const at::Tensor padded =
      at::constant_pad_nd(weight.to(at::kBFloat16), {0, 0, 0, 0, 0, 0, 0, 0, 0, padding});
  // [groups, kt, Cin / 32, k, k, Cout, 4 pieces, 8]
  const at::Tensor pieces = padded.unflatten(2, {-1, 4, 8}).permute({0, 5, 2, 6, 7, 1, 3, 4});
  // Every two rows have their 4 pieces of 16 bytes in another order, so that 8 rows hit all memory banks.
  const at::Tensor row = at::arange(padded.size(1), at::dtype(at::kLong).device(weight.device()));
  const at::Tensor piece = at::arange(4, row.options());
  const at::Tensor order = at::bitwise_xor(piece, row.unsqueeze(-1).floor_divide(2).remainder(4));
  return {.weight = pieces.gather(6, order.unsqueeze(-1).expand(pieces.sizes())).flatten(6),
          .bias = at::constant_pad_nd(bias.to(at::kFloat), {0, padding}),
          .packed = true};
}

bool gives_colours(const ConvWeight &weight) {
  return weight.bias.size(0) == kColourChannels;
}

ConvResult conv(ConvKind kind, const Frames &frames, int64_t num_outputs, const ConvWeight &weight,
                const Epilogue &epilogue) {
  auto [out, activated] = kernels::PackedConv::call(frames, static_cast<int64_t>(kind), num_outputs,
                                                    weight.weight, weight.bias, optional(epilogue.residual),
                                                    optional(epilogue.next_gamma), epilogue.keep_out);
  return {out, activated};
}

}  // namespace wan::packed
