// SPDX-License-Identifier: LGPL-2.1-or-later
#include "vae/blocks.h"

#include <ATen/ATen.h>

#include "ops/attention.h"
#include "ops/rms_norm.h"

namespace wan {

namespace {

using MakeWeight = ConvWeight (*)(const at::Tensor &, const at::Tensor &, at::ScalarType);

ConvWeight load_resample(const Weights &weights, int64_t in, int64_t out, MakeWeight make) {
  const Weights wide = (weights / "resample.1").as(at::kFloat);
  return make(wide("weight", {out, in, 3, 3}), wide("bias", {out}), weights.dtype());
}

}  // namespace

at::Tensor load_gamma(const Weights &weights, int64_t dim) {
  return weights.as(at::kFloat)("gamma", {dim, 1, 1, 1}).view(dim);
}

WanResidualBlock::WanResidualBlock(const Weights &weights, int64_t in, int64_t out)
    : norm1_(load_gamma(weights / "norm1", in)),
      conv1_(weights / "conv1", in, out, 3),
      norm2_(load_gamma(weights / "norm2", out)),
      conv2_(weights / "conv2", out, out, 3) {
  if (in != out) conv_shortcut_.emplace(weights / "conv_shortcut", in, out);
}

ConvResult WanResidualBlock::operator()(const ConvResult &x, StreamState &state, Epilogue next) const {
  const ConvResult y = conv1_(x.activated, state, {.next_gamma = norm2_, .keep_out = false});
  next.residual = conv_shortcut_ ? (*conv_shortcut_)(x.out) : x.out;
  return conv2_(y.activated, state, next);
}

WanAttentionBlock::WanAttentionBlock(const Weights &weights, int64_t dim)
    : norm_((weights / "norm").as(at::kFloat)("gamma", {dim, 1, 1}).view(dim)),
      to_qkv_(weights / "to_qkv", dim, 3 * dim, 2),
      proj_(weights / "proj", dim, dim, 2) {}

at::Tensor WanAttentionBlock::operator()(const at::Tensor &x) const {
  const at::Tensor qkv = to_qkv_(rms_norm(x, norm_, /*silu=*/false)).flatten(1, 2).unsqueeze(1);
  const std::vector<at::Tensor> parts = qkv.chunk(3, -1);  // [T, 1, H * W, C] each
  return proj_(wide_head_attention(parts[0], parts[1], parts[2]).reshape(x.sizes())) + x;
}

WanMidBlock::WanMidBlock(const Weights &weights, int64_t dim)
    : first_(weights / "resnets" / 0, dim, dim),
      attention_(weights / "attentions" / 0, dim),
      second_(weights / "resnets" / 1, dim, dim) {}

ConvResult WanMidBlock::operator()(ConvResult x, StreamState &state, const Epilogue &next) const {
  x.out = attention_(first_(x, state, {}).out);
  x.activated = rms_norm(x.out, second_.norm1(), /*silu=*/true);
  return second_(x, state, next);
}

WanUpsample::WanUpsample(const Weights &weights, int64_t in, int64_t out, bool temporal)
    : conv_(load_resample(weights, in, out, ConvWeight::upsample)) {
  if (temporal) time_conv_.emplace(weights / "time_conv", in, 2 * in, 1);
}

at::Tensor WanUpsample::double_frames(const at::Tensor &x, StreamState &state) const {
  // The first latent frame stands for one frame only, and the temporal convolution never sees it.
  return time_conv_ && !state.first_chunk() ? time_conv_->double_frames(x, state) : x;
}

ConvResult WanUpsample::double_size(const at::Tensor &x, const Epilogue &next) const {
  return upsample_conv2d(x, conv_, next);
}

WanDownsample::WanDownsample(const Weights &weights, int64_t dim, bool temporal)
    : conv_(load_resample(weights, dim, dim, ConvWeight::downsample)) {
  if (temporal) time_conv_.emplace(weights / "time_conv", dim);
}

at::Tensor WanDownsample::operator()(const at::Tensor &x, const at::Tensor &residual,
                                     StreamState &state) const {
  if (!time_conv_) return downsample_conv2d(x, conv_, {.residual = residual}).out;
  const at::Tensor y = downsample_conv2d(x, conv_, {}).out;
  if (!state.first_chunk()) return (*time_conv_)(y, state, {.residual = residual});
  time_conv_->begin(y, state);
  // Not the history itself, which blocks might put their output in the place of.
  return residual.defined() ? y + residual : y.clone();
}

at::Tensor duplicate_up(const at::Tensor &x, int64_t out, bool temporal, bool first_chunk) {
  const int64_t frames = x.size(0), height = x.size(1), width = x.size(2), factor = temporal ? 2 : 1;
  const int64_t pixels = factor * 4, copies = out * pixels / x.size(3), step = x.size(3) / out;
  const int64_t dropped = first_chunk ? factor - 1 : 0;
  const at::Tensor result = at::empty({frames, factor - dropped, height, 2, width, 2, out}, x.options());
  for (int64_t i = 4 * dropped; i < pixels; ++i)
    result.select(5, i % 2)
        .select(3, i / 2 % 2)
        .select(1, i / 4 - dropped)
        .copy_(x.slice(3, i / copies, std::nullopt, step));
  return result.view({frames * (factor - dropped), 2 * height, 2 * width, out});
}

at::Tensor average_down(const at::Tensor &x, int64_t out, int64_t frames, int64_t size) {
  const int64_t missing = (frames - x.size(0) % frames) % frames;
  const at::Tensor whole = missing == 0 ? x : at::constant_pad_nd(x, {0, 0, 0, 0, 0, 0, missing, 0});
  const at::Tensor pixels =
      whole.unflatten(2, {-1, size}).unflatten(1, {-1, size}).unflatten(0, {-1, frames});
  // [T, H, W, C, frames, size, size]
  return pixels.permute({0, 2, 4, 6, 1, 3, 5}).flatten(3).unflatten(3, {out, -1}).mean(-1);
}

}  // namespace wan
