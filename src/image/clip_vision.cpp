// SPDX-License-Identifier: LGPL-2.1-or-later
#include "image/clip_vision.h"

#include <ATen/ATen.h>

#include "ops/attention.h"

namespace wan {

CLIPVisionModel::CLIPVisionModel(const CLIPVisionConfig &config, const Weights &weights)
    : config_(config),
      class_embedding_(weights("vision_model.embeddings.class_embedding", {config.hidden_size})),
      patch_embedding_(weights("vision_model.embeddings.patch_embedding.weight",
                               {config.hidden_size, 3, config.patch_size, config.patch_size})),
      position_embedding_(weights("vision_model.embeddings.position_embedding.weight",
                                  {1 + config.num_patches(), config.hidden_size})),
      pre_layrnorm_(norm(weights / "vision_model.pre_layrnorm")) {
  for (int64_t i = 0; i + 1 < config.num_hidden_layers; ++i)
    layers_.push_back(layer(weights / "vision_model.encoder.layers" / i));
}

std::vector<std::string> CLIPVisionModel::unused_tensors(const CLIPVisionConfig &config) {
  return {"vision_model.encoder.layers." + std::to_string(config.num_hidden_layers - 1) + ".",
          "vision_model.post_layernorm.", "vision_model.embeddings.position_ids", "visual_projection."};
}

CLIPVisionModel::Linear CLIPVisionModel::linear(const Weights &weights, int64_t in, int64_t out) {
  return {weights("weight", {out, in}), weights("bias", {out})};
}

CLIPVisionModel::Norm CLIPVisionModel::norm(const Weights &weights) const {
  return {weights("weight", {config_.hidden_size}), weights("bias", {config_.hidden_size}),
          config_.layer_norm_eps};
}

CLIPVisionModel::Layer CLIPVisionModel::layer(const Weights &weights) const {
  const int64_t dim = config_.hidden_size, inner = config_.intermediate_size;
  const Weights attention = weights / "self_attn", mlp = weights / "mlp";
  return {norm(weights / "layer_norm1"),          norm(weights / "layer_norm2"),
          linear(attention / "q_proj", dim, dim), linear(attention / "k_proj", dim, dim),
          linear(attention / "v_proj", dim, dim), linear(attention / "out_proj", dim, dim),
          linear(mlp / "fc1", dim, inner),        linear(mlp / "fc2", inner, dim)};
}

at::Tensor CLIPVisionModel::Norm::operator()(const at::Tensor &x) const {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor CLIPVisionModel::Linear::operator()(const at::Tensor &x) const {
  return at::linear(x, weight, bias);
}

at::Tensor CLIPVisionModel::operator()(const at::Tensor &pixels, const RunContext &context) const {
  at::Tensor x = pre_layrnorm_(embed(pixels));
  for (const Layer &layer : layers_) {
    context.check();
    x = x + attend(layer, layer.layer_norm1(x));
    x = x + layer.fc2(at::gelu(layer.fc1(layer.layer_norm2(x))));
  }
  return x;
}

at::Tensor CLIPVisionModel::embed(const at::Tensor &pixels) const {
  const at::Tensor patches = at::conv2d(pixels.to(patch_embedding_.options()), patch_embedding_, /*bias=*/{},
                                        /*stride=*/config_.patch_size);
  const at::Tensor first = class_embedding_.expand({pixels.size(0), 1, -1});
  return at::cat({first, patches.flatten(2).transpose(1, 2)}, 1) + position_embedding_;
}

at::Tensor CLIPVisionModel::attend(const Layer &layer, const at::Tensor &x) const {
  const auto heads = [&](const at::Tensor &y) { return y.unflatten(-1, {config_.num_attention_heads, -1}); };
  const at::Tensor y = attention(heads(layer.q_proj(x)), heads(layer.k_proj(x)), heads(layer.v_proj(x)));
  return layer.out_proj(y.flatten(2));
}

}  // namespace wan
