// SPDX-License-Identifier: LGPL-2.1-or-later
//
// Registers the CUDA kernels with LibTorch's dispatcher: the code of libwan-engine-cuda.so that runs when it
// is loaded.
#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "ops/cuda/attention_sm90.h"
#include "ops/cuda/conv.h"
#include "ops/cuda/dequantize.h"
#include "ops/cuda/frames_to_pixels.h"
#include "ops/cuda/modulation.h"
#include "ops/cuda/quantize_rows.h"
#include "ops/cuda/quantize_values.h"
#include "ops/cuda/rms_norm_silu.h"
#include "ops/cuda/rotary_norm.h"
#include "ops/cuda/scaled_softmax.h"
#include "ops/kernel_set.h"
#include "ops/kernels.h"
#include "ops/pixel_layout.h"
#include "ops/rows.h"

namespace wan {

namespace {

void frames_to_pixels_cuda(const at::Tensor &frames, at::IntArrayRef packed_layout, const at::Tensor &out) {
  const WanPixelLayout layout = unpack_layout(packed_layout);
  check_pixels(out, frames, layout);
  const c10::cuda::CUDAGuard guard(frames.device());
  const at::Tensor planes = frames[0].contiguous();
  C10_CUDA_CHECK(launch_frames_to_pixels(planes.const_data_ptr<float>(), planes.size(1), layout,
                                         out.mutable_data_ptr<uint8_t>(), c10::cuda::getCurrentCUDAStream()));
}

int64_t compute_capability(int64_t device) {
  const cudaDeviceProp *properties = at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device));
  return properties->major * 10 + properties->minor;
}

std::string device_name(int64_t device) {
  return at::cuda::getDeviceProperties(static_cast<c10::DeviceIndex>(device))->name;
}

__nv_bfloat16 *bfloat16_data(const at::Tensor &tensor) {
  return tensor.defined() ? static_cast<__nv_bfloat16 *>(tensor.data_ptr()) : nullptr;
}

/// Throws where a tensor is not what the kernels take it for.
void check(const at::Tensor &tensor, at::ScalarType dtype, at::IntArrayRef shape) {
  TORCH_CHECK(
      tensor.is_contiguous() && tensor.is_cuda() && tensor.scalar_type() == dtype && tensor.sizes() == shape,
      "expected a contiguous ", dtype, " tensor of ", shape, ", got ", tensor.scalar_type(), " of ",
      tensor.sizes());
}

void dequantize_cuda(const at::Tensor &blocks, int64_t type, const at::Tensor &values) {
  const BlockFormat *format = find_block_format(static_cast<uint32_t>(type));
  TORCH_CHECK(format && blocks.is_contiguous() && blocks.scalar_type() == at::kByte &&
              blocks.numel() / format->bytes * format->elements == values.numel());
  check(values, values.scalar_type() == at::kFloat ? at::kFloat : at::kBFloat16, values.sizes());
  const c10::cuda::CUDAGuard guard(values.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto launch = [&](auto *out) {
    C10_CUDA_CHECK(launch_dequantize(format->type, blocks.const_data_ptr(), values.numel(), out, stream));
  };
  if (values.scalar_type() == at::kFloat)
    launch(values.mutable_data_ptr<float>());
  else
    launch(bfloat16_data(values));
}

at::Tensor rms_norm_cuda(const at::Tensor &x, const at::Tensor &gamma, bool silu) {
  const int64_t channels = x.size(-1);
  check(x, at::kBFloat16, x.sizes());
  check(gamma, at::kFloat, {channels});
  TORCH_CHECK(channels % 8 == 0 && channels <= kMaxNormChannels);
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor out = at::empty_like(x);
  C10_CUDA_CHECK(launch_rms_norm_silu(bfloat16_data(x), gamma.const_data_ptr<float>(), x.numel() / channels,
                                      static_cast<int>(channels), silu, bfloat16_data(out),
                                      c10::cuda::getCurrentCUDAStream()));
  return out;
}

Rows rows_of(const at::Tensor &x) {
  TORCH_CHECK(takes_rows(x));
  return {x.size(0), x.size(1), static_cast<int>(x.size(2))};
}

RowFactor factor_of(const at::Tensor &factor, const at::Tensor &x) {
  TORCH_CHECK(takes_factor(factor, x));
  return {factor.const_data_ptr<float>(), factor.size(0) == 1 ? 0 : factor.stride(0), factor.stride(1)};
}

/// Of which `factor`, if there is one, has the rows.
RowSegments segments_of(at::IntArrayRef starts, const at::Tensor *factor) {
  TORCH_CHECK(!starts.empty() && starts.size() <= kMaxSegments && starts[0] == 0);
  TORCH_CHECK(!factor || factor->size(1) == static_cast<int64_t>(starts.size()));
  RowSegments segments = {static_cast<int>(starts.size()), {}};
  std::copy(starts.begin(), starts.end(), segments.starts);
  return segments;
}

const __nv_bfloat16 *optional_row(const std::optional<at::Tensor> &row, const at::Tensor &x) {
  if (!row) return nullptr;
  check(*row, at::kBFloat16, {x.size(-1)});
  return bfloat16_data(*row);
}

/// For rows of x in e4m3.
std::tuple<at::Tensor, at::Tensor> empty_quantized(const at::Tensor &x) {
  return {at::empty(x.sizes(), x.options().dtype(at::kFloat8_e4m3fn)),
          at::empty({x.numel() / x.size(-1), 1}, x.options().dtype(at::kFloat))};
}

std::tuple<at::Tensor, at::Tensor> layer_norm_cuda(const at::Tensor &x, const at::Tensor &scale,
                                                   const at::Tensor &shift, at::IntArrayRef starts,
                                                   bool modulates, double eps, bool quantizes) {
  TORCH_CHECK(shift.size(1) == scale.size(1));
  const c10::cuda::CUDAGuard guard(x.device());
  auto [out, out_scale] = quantizes ? empty_quantized(x) : std::tuple(at::empty_like(x), at::Tensor());
  C10_CUDA_CHECK(launch_layer_norm(
      bfloat16_data(x), rows_of(x), segments_of(starts, &scale), factor_of(scale, x), factor_of(shift, x),
      modulates, static_cast<float>(eps), out.data_ptr(),
      quantizes ? out_scale.mutable_data_ptr<float>() : nullptr, c10::cuda::getCurrentCUDAStream()));
  return {out, out_scale};
}

at::Tensor gated_residual_cuda(const at::Tensor &x, const at::Tensor &branch,
                               const std::optional<at::Tensor> &bias, const std::optional<at::Tensor> &gate,
                               at::IntArrayRef starts) {
  check(branch, at::kBFloat16, x.sizes());
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor out = at::empty_like(x);
  C10_CUDA_CHECK(launch_gated_residual(bfloat16_data(x), bfloat16_data(branch), optional_row(bias, x),
                                       rows_of(x), segments_of(starts, gate ? &*gate : nullptr),
                                       gate ? factor_of(*gate, x) : RowFactor{}, bfloat16_data(out),
                                       c10::cuda::getCurrentCUDAStream()));
  return out;
}

/// For the tokens of x, [B, L, D].
RotaryTables tables_of(const at::Tensor &cos, const at::Tensor &sin, const at::Tensor &x) {
  check(cos, at::kFloat, {x.size(1), 1, cos.size(-1)});
  check(sin, at::kFloat, cos.sizes());
  return {cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), static_cast<int>(2 * cos.size(-1))};
}

at::Tensor heads_rms_norm_cuda(const at::Tensor &x, const std::optional<at::Tensor> &bias,
                               const at::Tensor &weight, const std::optional<at::Tensor> &cos,
                               const std::optional<at::Tensor> &sin, double eps, bool quantizes,
                               const std::optional<at::Tensor> &center) {
  check(weight, at::kBFloat16, {x.size(-1)});
  RotaryTables tables{};
  std::vector<int64_t> shape = x.sizes().vec();
  if (cos && sin) {
    tables = tables_of(*cos, *sin, x);
    shape = {x.size(0), x.size(1), x.size(2) / tables.head_channels, tables.head_channels};
  }
  TORCH_CHECK(tables.cos || !quantizes);
  if (center) check(*center, at::kFloat, {x.size(-1)});
  const c10::cuda::CUDAGuard guard(x.device());
  at::Tensor out = at::empty(shape, x.options().dtype(quantizes ? at::kFloat8_e4m3fn : at::kBFloat16));
  C10_CUDA_CHECK(launch_rms_norm(bfloat16_data(x), optional_row(bias, x), rows_of(x), bfloat16_data(weight),
                                 tables, static_cast<float>(eps), quantizes,
                                 center ? center->const_data_ptr<float>() : nullptr, out.data_ptr(),
                                 c10::cuda::getCurrentCUDAStream()));
  return out;
}

void rotate_heads_cuda(const at::Tensor &x, const at::Tensor &cos, const at::Tensor &sin,
                       const at::Tensor &out) {
  check(out, at::kBFloat16, x.sizes());
  const at::Tensor rows = x.flatten(2);
  const c10::cuda::CUDAGuard guard(x.device());
  C10_CUDA_CHECK(launch_rotate(bfloat16_data(rows), rows_of(rows), tables_of(cos, sin, rows),
                               bfloat16_data(out), c10::cuda::getCurrentCUDAStream()));
}

std::tuple<at::Tensor, at::Tensor> quantize_rows_cuda(const at::Tensor &x,
                                                      const std::optional<at::Tensor> &bias,
                                                      bool applies_gelu) {
  TORCH_CHECK(takes_rows(x, kMaxWideRowChannels));
  const c10::cuda::CUDAGuard guard(x.device());
  auto [out, scale] = empty_quantized(x);
  C10_CUDA_CHECK(launch_quantize_rows(bfloat16_data(x), optional_row(bias, x), scale.numel(),
                                      static_cast<int>(x.size(-1)), applies_gelu, out.data_ptr(),
                                      scale.mutable_data_ptr<float>(), c10::cuda::getCurrentCUDAStream()));
  return {out, scale};
}

sm90::HeadRows head_rows(const at::Tensor &x) {
  return {x.const_data_ptr(), x.stride(1), x.stride(0)};
}

/// What the kernel gives from q, into `out`, and keys of that shape.
sm90::Attention attention_of(const at::Tensor &q, at::IntArrayRef keys, const at::Tensor &out) {
  TORCH_CHECK(q.dim() == 4 && q.size(3) == sm90::kAttentionHeadDim && keys[0] == q.size(0) &&
              keys[2] == q.size(2) && keys[3] == q.size(3));
  return {static_cast<int>(q.size(0)),
          static_cast<int>(q.size(1)),
          static_cast<int>(keys[1]),
          static_cast<int>(q.size(2)),
          1.0f / std::sqrt(static_cast<float>(q.size(3))),
          bfloat16_data(out)};
}

at::Tensor attention_sm90_cuda(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v) {
  TORCH_CHECK(k.sizes() == v.sizes());
  const c10::cuda::CUDAGuard guard(q.device());
  at::Tensor out = at::empty(q.sizes(), q.options());
  C10_CUDA_CHECK(sm90::launch_attention(attention_of(q, k.sizes(), out), head_rows(q), head_rows(k),
                                        head_rows(v), c10::cuda::getCurrentCUDAStream()));
  return out;
}

at::Tensor fp8_attention_sm90_cuda(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                                   const std::optional<at::Tensor> &v_bias) {
  check(q, at::kFloat8_e4m3fn, q.sizes());
  check(k, at::kFloat8_e4m3fn, v.sizes());
  check(v, at::kBFloat16, v.sizes());
  const int64_t batch = v.size(0), tokens = v.size(1), heads = v.size(2), head_dim = v.size(3);
  const int64_t columns = value_columns(tokens);
  const c10::cuda::CUDAGuard guard(q.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  at::Tensor out = at::empty(q.sizes(), v.options());
  at::Tensor values = at::empty({batch, heads, head_dim, columns}, q.options());
  at::Tensor scale = at::empty({batch, heads, head_dim}, q.options().dtype(at::kFloat));
  const ValueRows rows = {bfloat16_data(v), optional_row(v_bias, v.flatten(2)), static_cast<int>(tokens),
                          v.stride(1), v.stride(0)};
  C10_CUDA_CHECK(launch_quantize_values(rows, static_cast<int>(batch), static_cast<int>(heads), columns,
                                        values.data_ptr(), scale.mutable_data_ptr<float>(), stream));
  C10_CUDA_CHECK(sm90::launch_attention_fp8(attention_of(q, k.sizes(), out), head_rows(q), head_rows(k),
                                            {values.data_ptr(), scale.const_data_ptr<float>(), columns},
                                            stream));
  return out;
}

at::Tensor scaled_softmax_cuda(const at::Tensor &scores, double scale) {
  const int64_t columns = scores.size(-1);
  constexpr int64_t kStaticBytes = 1024;  // what the kernel has besides its row
  const auto limit =
      static_cast<int64_t>(at::cuda::getDeviceProperties(scores.get_device())->sharedMemPerBlockOptin);
  if (columns % 4 != 0 || columns * static_cast<int64_t>(sizeof(float)) + kStaticBytes > limit)
    return at::softmax(scores * scale, -1).to(at::kBFloat16);
  check(scores, at::kFloat, scores.sizes());
  const c10::cuda::CUDAGuard guard(scores.device());
  at::Tensor out = at::empty(scores.sizes(), scores.options().dtype(at::kBFloat16));
  C10_CUDA_CHECK(launch_scaled_softmax(scores.const_data_ptr<float>(), static_cast<float>(scale),
                                       scores.numel() / columns, static_cast<int>(columns),
                                       bfloat16_data(out), c10::cuda::getCurrentCUDAStream()));
  return out;
}

/// See packed::conv in ops/packed_conv.h.
std::tuple<at::Tensor, at::Tensor> packed_conv_cuda(at::TensorList frames, int64_t kind, int64_t num_outputs,
                                                    const at::Tensor &weight, const at::Tensor &bias,
                                                    const std::optional<at::Tensor> &residual,
                                                    const std::optional<at::Tensor> &gamma, bool keep_out) {
  const at::Tensor &first = frames[0];
  const int64_t height = first.size(0), width = first.size(1), in_channels = first.size(2);
  Conv conv{};
  conv.kind = static_cast<ConvKind>(kind);
  conv.height = static_cast<int>(height);
  conv.width = static_cast<int>(width);
  conv.in_channels = static_cast<int>(in_channels);
  conv.out_channels = static_cast<int>(bias.size(0));
  conv.num_frames = static_cast<int>(frames.size());
  conv.num_outputs = static_cast<int>(num_outputs);
  TORCH_CHECK(frames.size() <= kMaxFrames && weight.size(2) * kChannelBlock == in_channels);
  for (size_t i = 0; i < frames.size(); ++i) {
    check(frames[i], at::kBFloat16, {height, width, in_channels});
    conv.frames[i] = frames[i].data_ptr();
  }
  conv.weight = bfloat16_data(weight);
  conv.bias = bias.const_data_ptr<float>();

  const c10::cuda::CUDAGuard guard(first.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const auto launch_conv = has_sm90_kernels(first.device()) ? sm90::launch_conv : sm80::launch_conv;
  if (bias.size(0) == kColourChannels) {
    at::Tensor planes = at::empty({3, num_outputs, height, width}, first.options().dtype(at::kFloat));
    conv.planes = planes.mutable_data_ptr<float>();
    conv.plane_stride = planes.stride(0);
    C10_CUDA_CHECK(launch_conv(conv, stream));
    return {planes.permute({1, 2, 3, 0}), at::Tensor()};
  }

  const bool doubles = conv.kind == ConvKind::kDoubleFrames;
  const int64_t scale = conv.kind == ConvKind::kUpsample2x ? 2 : 1;
  const int64_t channels = doubles ? bias.size(0) / 2 : bias.size(0);
  const std::vector<int64_t> shape = {doubles ? 2 * num_outputs : num_outputs, scale * height, scale * width,
                                      channels};
  const bool fused = gamma && fuses_norm(channels);
  at::Tensor out, activated;
  if (residual) {
    check(*residual, at::kBFloat16, shape);
    conv.residual = bfloat16_data(*residual);
  }
  if (keep_out || !fused) out = residual ? *residual : at::empty(shape, first.options());
  if (fused) activated = at::empty(shape, first.options());
  if (gamma) {
    check(*gamma, at::kFloat, {channels});
    conv.gamma = gamma->const_data_ptr<float>();
  }
  conv.out = bfloat16_data(out);
  conv.activated = bfloat16_data(activated);
  C10_CUDA_CHECK(launch_conv(conv, stream));
  if (gamma && !fused) activated = rms_norm_cuda(out, *gamma, /*silu=*/true);
  return {keep_out ? out : at::Tensor(), activated};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(wan, library) {
  kernels::ComputeCapability::define(library, compute_capability);
  kernels::DeviceName::define(library, device_name);
}

TORCH_LIBRARY_IMPL(wan, CUDA, library) {
  kernels::AttentionSm90::implement(library, attention_sm90_cuda);
  kernels::Dequantize::implement(library, dequantize_cuda);
  kernels::Fp8AttentionSm90::implement(library, fp8_attention_sm90_cuda);
  kernels::FramesToPixels::implement(library, frames_to_pixels_cuda);
  kernels::GatedResidual::implement(library, gated_residual_cuda);
  kernels::HeadsRmsNorm::implement(library, heads_rms_norm_cuda);
  kernels::LayerNorm::implement(library, layer_norm_cuda);
  kernels::PackedConv::implement(library, packed_conv_cuda);
  kernels::QuantizeRows::implement(library, quantize_rows_cuda);
  kernels::RmsNorm::implement(library, rms_norm_cuda);
  kernels::RotateHeads::implement(library, rotate_heads_cuda);
  kernels::ScaledSoftmax::implement(library, scaled_softmax_cuda);
}

}  // namespace wan
