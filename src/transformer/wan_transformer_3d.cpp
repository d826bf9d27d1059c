// SPDX-License-Identifier: LGPL-2.1-or-later
#include "transformer/wan_transformer_3d.h"

#include <ATen/ATen.h>

#include <cmath>

#include "device.h"
#include "ops/modulation.h"

namespace wan {

namespace {

constexpr double kImageEps = 1e-5;

/// Tables of some of the tokens.
RotaryEmbedding part(const RotaryEmbedding &tables, const Share &tokens) {
  return {tables.cos.narrow(0, tokens.first, tokens.count), tables.sin.narrow(0, tokens.first, tokens.count)};
}

/// pictures: their keys and values, where another prompt's forward has made them.
CrossContext cross_context(const WanTransformerBlock &block, const EncodedContext &context,
                           const KeyValue &pictures) {
  const WanAttention &attention = block.cross_attention();
  if (!pictures.key.defined()) return attention.cross_context(context.text, context.image);
  return {attention.cross_context(context.text, {}).text, pictures};
}

}  // namespace

WanImageEmbedding::WanImageEmbedding(const TransformerConfig &config, const Weights &weights)
    : norm1_weight_(weights("norm1.weight", {*config.image_dim})),
      norm1_bias_(weights("norm1.bias", {*config.image_dim})),
      ff_in_(weights / "ff.net.0.proj", *config.image_dim, *config.image_dim),
      ff_out_(weights / "ff.net.2", *config.image_dim, config.inner_dim()),
      norm2_weight_(weights("norm2.weight", {config.inner_dim()})),
      norm2_bias_(weights("norm2.bias", {config.inner_dim()})) {
  if (config.pos_embed_seq_len)
    pos_embed_ = weights("pos_embed", {1, *config.pos_embed_seq_len, *config.image_dim});
}

at::Tensor WanImageEmbedding::operator()(const at::Tensor &image) const {
  at::Tensor x = image.flatten(0, 1).unsqueeze(0);
  if (pos_embed_.defined()) x = x + pos_embed_;
  x = affine_norm(x, norm1_weight_, norm1_bias_, kImageEps).values;
  return affine_norm(ff_out_(at::gelu(ff_in_(x))), norm2_weight_, norm2_bias_, kImageEps).values;
}

const std::set<std::string> WanTransformer3DModel::kKeepInFp32 = {"time_embedder", "scale_shift_table",
                                                                  "norm1", "norm2", "norm3"};

WanTransformer3DModel::WanTransformer3DModel(const TransformerConfig &config, const Weights &weights,
                                             WanQuantization quantization, std::shared_ptr<BlockSlots> slots)
    : config_(config),
      dtype_(weights.dtype()),
      patch_weight_(weights("patch_embedding.weight", {config.inner_dim(), config.in_channels, 1,
                                                       config.patch_height, config.patch_width})),
      patch_bias_(weights("patch_embedding.bias", {config.inner_dim()})),
      time_in_(weights / "condition_embedder.time_embedder.linear_1", config.freq_dim, config.inner_dim()),
      time_out_(weights / "condition_embedder.time_embedder.linear_2", config.inner_dim(),
                config.inner_dim()),
      time_proj_(weights / "condition_embedder.time_proj", config.inner_dim(), 6 * config.inner_dim()),
      text_in_(weights / "condition_embedder.text_embedder.linear_1", config.text_dim, config.inner_dim()),
      text_out_(weights / "condition_embedder.text_embedder.linear_2", config.inner_dim(),
                config.inner_dim()),
      blocks_(std::make_unique<BlockStore>(std::move(slots))),
      scale_shift_table_(weights("scale_shift_table", {1, 2, config.inner_dim()})),
      proj_out_(weights / "proj_out", config.inner_dim(),
                config.out_channels * config.patch_height * config.patch_width) {
  if (config.image_dim) image_embedder_.emplace(config, weights / "condition_embedder.image_embedder");
  for (int64_t i = 0; i < config.num_layers; ++i)
    blocks_->add(WanTransformerBlock(config, weights / "blocks" / i, quantization));
}

EncodedContext WanTransformer3DModel::encode(const at::Tensor &text, const at::Tensor &image) const {
  return {text_out_(at::gelu(text_in_(text.to(dtype_)), "tanh")),
          image.defined() ? (*image_embedder_)(image.to(dtype_)) : at::Tensor(),
          std::vector<CrossContext>(blocks_->size())};
}

RotaryEmbedding WanTransformer3DModel::rotary(int64_t frames, int64_t height, int64_t width) const {
  const TokenGrid grid = {0, frames, height / config_.patch_height, width / config_.patch_width};
  return rotary_embedding(config_.attention_head_dim, grid, patch_weight_.device());
}

at::Tensor WanTransformer3DModel::patchify(const at::Tensor &latents) const {
  const at::Tensor tokens = at::conv3d(latents.to(dtype_), patch_weight_, patch_bias_,
                                       /*stride=*/{1, config_.patch_height, config_.patch_width});
  return tokens.flatten(2).transpose(1, 2).contiguous();
}

/// The channel is the fastest index of a token's features.
at::Tensor WanTransformer3DModel::unpatchify(const at::Tensor &tokens, at::IntArrayRef latents_shape) const {
  const int64_t batch = latents_shape[0], frames = latents_shape[2];
  const int64_t height = latents_shape[3], width = latents_shape[4];
  return tokens
      .reshape({batch, frames, height / config_.patch_height, width / config_.patch_width,
                config_.patch_height, config_.patch_width, config_.out_channels})
      .permute({0, 6, 1, 2, 4, 3, 5})
      .reshape({batch, config_.out_channels, frames, height, width});
}

/// Sinusoids (cosines first) and their two-layer embedding: [S, D], rounded to the weights' dtype.
at::Tensor WanTransformer3DModel::time_embedding(const std::vector<TimeSegment> &times) const {
  const int64_t half = config_.freq_dim / 2;
  const at::Tensor frequency =
      at::exp(at::arange(half, at::kFloat) * -std::log(10000.0) / static_cast<double>(half));
  std::vector<at::Tensor> sinusoids;
  for (const TimeSegment &segment : times) {
    const at::Tensor angle = frequency * at::scalar_tensor(segment.timestep, at::kFloat);
    sinusoids.push_back(at::cat({angle.cos(), angle.sin()}));
  }
  const at::Tensor sinusoid = at::stack(sinusoids).to(patch_weight_.device());
  return time_out_(at::silu(time_in_(sinusoid))).to(dtype_);
}

EncodedTimes WanTransformer3DModel::encode(const std::vector<TimeSegment> &times) const {
  const at::Tensor time = time_embedding(times);
  return {time, time_proj_(at::silu(time)).unflatten(1, {6, -1}).unsqueeze(0)};
}

at::Tensor WanTransformer3DModel::operator()(const at::Tensor &latents, const Pass &pass) const {
  const EncodedTimes times = pass.encoded_times ? *pass.encoded_times : encode(pass.times);
  BlockStore &next = pass.next ? *pass.next->blocks_ : *blocks_;
  at::Tensor x = patchify(latents);
  // From here on a rank has its own tokens.
  const int64_t tokens = x.size(1);
  const Share own = pass.group.own_share(tokens);
  x = x.narrow(1, own.first, own.count);
  const RotaryEmbedding rotary = part(pass.rotary, own);
  const SegmentRange segments = segments_of(pass.times, own);
  const Modulation modulation = {times.modulation.narrow(1, segments.first, segments.count), segments.starts};
  const at::Tensor patches = pass.cache ? x : at::Tensor();
  LaunchWindow window(x.device());
  for (size_t i = 0; i < blocks_->size(); ++i) {
    pass.run.check();
    pass.group.check();
    const auto &block = blocks_->use<WanTransformerBlock>(i);
    const Surroundings others = {pass.group, tokens, pass.keys, i};
    if (pass.remembers_only && i + 1 == blocks_->size()) {
      block.remember(x, modulation, rotary, others);
      blocks_->done(i, next);
      return {};
    }
    CrossContext &context = pass.context.blocks[i];
    if (!context.text.key.defined()) context = cross_context(block, pass.context, context.image);
    x = block(x, context, modulation, rotary, others);
    blocks_->done(i, next);
    window.advance();
    if (i == 0 && pass.cache && pass.cache->skips_rest(patches, x, pass.group)) break;
  }
  if (pass.cache) x = pass.cache->finish(x);
  const at::Tensor time = times.time.narrow(0, segments.first, segments.count);
  const std::vector<at::Tensor> head = (scale_shift_table_ + time.unsqueeze(1)).unsqueeze(0).unbind(2);
  x = proj_out_(modulated_norm(x, /*shift=*/head[0], /*scale=*/head[1], config_.eps, /*quantizes=*/false,
                               modulation.starts)
                    .values);
  x = pass.group.gather(x, tokens);
  return x.defined() ? unpatchify(x, latents.sizes()) : x;
}

}  // namespace wan
