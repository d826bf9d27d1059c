// SPDX-License-Identifier: LGPL-2.1-or-later
//
// All operations with kernels of their own for a device. Nobody but the functions of ops/ calls them: these
// see to it that a kernel takes what it is given, and do the rest with plain ATen.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <tuple>

#include "ops/dispatch.h"

namespace wan::kernels {

using OptionalTensor = std::optional<at::Tensor>;
using TwoTensors = std::tuple<at::Tensor, at::Tensor>;

/// q, k, v.
using AttentionSm90 =
    Operation<"attention_sm90", at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &)>;
/// q, k, v, bias of v.
using Fp8AttentionSm90 =
    Operation<"fp8_attention_sm90",
              at::Tensor(const at::Tensor &, const at::Tensor &, const at::Tensor &, const OptionalTensor &)>;
/// scores, scale.
using ScaledSoftmax = Operation<"scaled_softmax", at::Tensor(const at::Tensor &, double)>;
/// frames, kind, number of outputs, weight, bias, residual, gamma of the next norm, whether the output is
/// kept.
using PackedConv = Operation<"packed_conv", TwoTensors(at::TensorList, int64_t, int64_t, const at::Tensor &,
                                                       const at::Tensor &, const OptionalTensor &,
                                                       const OptionalTensor &, bool)>;
/// blocks, ggml's number of their type, values to write to.
using Dequantize = Operation<"dequantize", void(const at::Tensor &, int64_t, const at::Tensor &)>;
/// frames, packed layout, pixels to write to.
using FramesToPixels =
    Operation<"frames_to_pixels", void(const at::Tensor &, at::IntArrayRef, const at::Tensor &)>;
/// x, scale, shift, first tokens of the runs, whether it modulates, eps, whether it quantizes.
using LayerNorm =
    Operation<"layer_norm", TwoTensors(const at::Tensor &, const at::Tensor &, const at::Tensor &,
                                       at::IntArrayRef, bool, double, bool)>;
/// x, branch, bias of the branch, gate, first tokens of the runs.
using GatedResidual =
    Operation<"gated_residual", at::Tensor(const at::Tensor &, const at::Tensor &, const OptionalTensor &,
                                           const OptionalTensor &, at::IntArrayRef)>;
/// x, bias, weight, cos, sin, eps, whether it quantizes, center.
using HeadsRmsNorm =
    Operation<"heads_rms_norm", at::Tensor(const at::Tensor &, const OptionalTensor &, const at::Tensor &,
                                           const OptionalTensor &, const OptionalTensor &, double, bool,
                                           const OptionalTensor &)>;
/// x, bias, whether GELU is applied.
using QuantizeRows = Operation<"quantize_rows", TwoTensors(const at::Tensor &, const OptionalTensor &, bool)>;
/// x, cos, sin, what is written to.
using RotateHeads = Operation<"rotate_heads", void(const at::Tensor &, const at::Tensor &, const at::Tensor &,
                                                   const at::Tensor &)>;
/// x, gamma, whether SiLU follows.
using RmsNorm = Operation<"rms_norm", at::Tensor(const at::Tensor &, const at::Tensor &, bool)>;

/// Of a GPU by its index. Defined by the CUDA module.
using ComputeCapability = Operation<"compute_capability", int64_t(int64_t)>;
using DeviceName = Operation<"device_name", std::string(int64_t)>;

}  // namespace wan::kernels
