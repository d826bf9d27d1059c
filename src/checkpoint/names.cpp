// SPDX-License-Identifier: LGPL-2.1-or-later
#include "checkpoint/names.h"

#include <algorithm>
#include <cctype>
#include <optional>

namespace wan {

namespace {

/// Two names of one thing; '#' stands for a number, equal in both. What follows it in a name is kept.
struct Rule {
  std::string diffusers, original;
};
using Rules = std::vector<Rule>;  // of several that fit, the first counts

// Diffusers' scripts/convert_wan_to_diffusers.py has these names too, as substrings to replace.
const Rules &transformer_rules() {
  static const Rules rules = {
      {"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
      {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
      {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
      {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
      {"condition_embedder.time_proj", "time_projection.1"},
      {"condition_embedder.image_embedder.norm1", "img_emb.proj.0"},
      {"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"},
      {"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"},
      {"condition_embedder.image_embedder.norm2", "img_emb.proj.4"},
      {"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"},
      {"blocks.#.scale_shift_table", "blocks.#.modulation"},
      {"blocks.#.attn1.to_q", "blocks.#.self_attn.q"},
      {"blocks.#.attn1.to_k", "blocks.#.self_attn.k"},
      {"blocks.#.attn1.to_v", "blocks.#.self_attn.v"},
      {"blocks.#.attn1.to_out.0", "blocks.#.self_attn.o"},
      {"blocks.#.attn1", "blocks.#.self_attn"},
      {"blocks.#.attn2.to_q", "blocks.#.cross_attn.q"},
      {"blocks.#.attn2.to_k", "blocks.#.cross_attn.k"},
      {"blocks.#.attn2.to_v", "blocks.#.cross_attn.v"},
      {"blocks.#.attn2.to_out.0", "blocks.#.cross_attn.o"},
      {"blocks.#.attn2.add_k_proj", "blocks.#.cross_attn.k_img"},
      {"blocks.#.attn2.add_v_proj", "blocks.#.cross_attn.v_img"},
      {"blocks.#.attn2.norm_added_k", "blocks.#.cross_attn.norm_k_img"},
      {"blocks.#.attn2", "blocks.#.cross_attn"},
      {"blocks.#.norm2", "blocks.#.norm3"},
      {"blocks.#.ffn.net.0.proj", "blocks.#.ffn.0"},
      {"blocks.#.ffn.net.2", "blocks.#.ffn.2"},
      {"scale_shift_table", "head.modulation"},
      {"proj_out", "head.head"},
  };
  return rules;
}

const Rules &text_encoder_rules() {
  static const Rules rules = {
      {"shared", "token_embedding"},
      {"encoder.final_layer_norm", "norm"},
      {"encoder.block.#.layer.0.layer_norm", "blocks.#.norm1"},
      {"encoder.block.#.layer.0.SelfAttention.relative_attention_bias", "blocks.#.pos_embedding.embedding"},
      {"encoder.block.#.layer.0.SelfAttention", "blocks.#.attn"},
      {"encoder.block.#.layer.1.layer_norm", "blocks.#.norm2"},
      {"encoder.block.#.layer.1.DenseReluDense.wi_0", "blocks.#.ffn.gate.0"},
      {"encoder.block.#.layer.1.DenseReluDense.wi_1", "blocks.#.ffn.fc1"},
      {"encoder.block.#.layer.1.DenseReluDense.wo", "blocks.#.ffn.fc2"},
  };
  return rules;
}

const Rules &llama_text_encoder_rules() {
  static const Rules rules = {
      {"shared", "token_embd"},
      {"encoder.final_layer_norm", "enc.output_norm"},
      {"encoder.block.#.layer.0.layer_norm", "enc.blk.#.attn_norm"},
      {"encoder.block.#.layer.0.SelfAttention.relative_attention_bias", "enc.blk.#.attn_rel_b"},
      {"encoder.block.#.layer.0.SelfAttention.q", "enc.blk.#.attn_q"},
      {"encoder.block.#.layer.0.SelfAttention.k", "enc.blk.#.attn_k"},
      {"encoder.block.#.layer.0.SelfAttention.v", "enc.blk.#.attn_v"},
      {"encoder.block.#.layer.0.SelfAttention.o", "enc.blk.#.attn_o"},
      {"encoder.block.#.layer.1.layer_norm", "enc.blk.#.ffn_norm"},
      {"encoder.block.#.layer.1.DenseReluDense.wi_0", "enc.blk.#.ffn_gate"},
      {"encoder.block.#.layer.1.DenseReluDense.wi_1", "enc.blk.#.ffn_up"},
      {"encoder.block.#.layer.1.DenseReluDense.wo", "enc.blk.#.ffn_down"},
      {"decoder", "dec"},  // which a file of the whole model has, and is not used
      {"lm_head", "output"},
  };
  return rules;
}

const Rules &bare_clip_vision_rules() {
  static const Rules rules = {{"vision_model.embeddings", "embeddings"},
                              {"vision_model.pre_layrnorm", "pre_layrnorm"},
                              {"vision_model.encoder", "encoder"},
                              {"vision_model.post_layernorm", "post_layernorm"}};
  return rules;
}

/// The original VAE's encoder or decoder: stages of residual blocks and, but for the last, one that
/// resamples.
struct VaeHalf {
  std::string name;       // "encoder"
  std::string direction;  // "down"
  int resnets;
  bool is_residual;  // TI2V-5B's, whose stages are modules of their own

  std::string diffusers_part(int stage, int part) const {
    const std::string blocks = name + "." + direction + "_blocks.";
    if (!is_residual && name == "encoder") return blocks + std::to_string(in_one_row(stage, part));
    const std::string resampler = direction + (is_residual ? "sampler" : "samplers.0");
    return blocks + std::to_string(stage) + "." +
           (part < resnets ? "resnets." + std::to_string(part) : resampler);
  }
  std::string original_part(int stage, int part) const {
    const std::string samples = direction + "samples.";
    if (!is_residual) return name + "." + samples + std::to_string(in_one_row(stage, part));
    return name + "." + samples + std::to_string(stage) + "." + samples + std::to_string(part);
  }
  int in_one_row(int stage, int part) const { return stage * (resnets + 1) + part; }
};

void add_residual_block(Rules &rules, const std::string &diffusers, const std::string &original) {
  for (const auto &[ours, theirs] : {std::pair{".norm1", ".residual.0"},
                                     {".conv1", ".residual.2"},
                                     {".norm2", ".residual.3"},
                                     {".conv2", ".residual.6"},
                                     {".conv_shortcut", ".shortcut"}})
    rules.push_back({diffusers + ours, original + theirs});
}

void add_half(Rules &rules, const VaeHalf &half) {
  for (const auto &[ours, theirs] : {std::pair{".conv_in", ".conv1"},
                                     {".norm_out", ".head.0"},
                                     {".conv_out", ".head.2"},
                                     {".mid_block.attentions.0", ".middle.1"}})
    rules.push_back({half.name + ours, half.name + theirs});
  add_residual_block(rules, half.name + ".mid_block.resnets.0", half.name + ".middle.0");
  add_residual_block(rules, half.name + ".mid_block.resnets.1", half.name + ".middle.2");
  constexpr int kStages = 4;
  for (int stage = 0; stage < kStages; ++stage) {
    for (int part = 0; part < half.resnets; ++part)
      add_residual_block(rules, half.diffusers_part(stage, part), half.original_part(stage, part));
    if (stage < kStages - 1)
      rules.push_back({half.diffusers_part(stage, half.resnets), half.original_part(stage, half.resnets)});
  }
}

/// Of the VAEs with two residual blocks a stage, which are the only ones there are in original names.
Rules make_vae_rules(bool is_residual) {
  Rules rules = {{"quant_conv", "conv1"}, {"post_quant_conv", "conv2"}};
  add_half(rules, {"encoder", "down", 2, is_residual});
  add_half(rules, {"decoder", "up", 3, is_residual});
  return rules;
}

const Rules &rules_of(Naming naming) {
  static const Rules none, vae = make_vae_rules(false), residual_vae = make_vae_rules(true);
  switch (naming) {
    case Naming::kOriginalTransformer:
      return transformer_rules();
    case Naming::kOriginalVae:
      return vae;
    case Naming::kOriginalResidualVae:
      return residual_vae;
    case Naming::kOriginalTextEncoder:
      return text_encoder_rules();
    case Naming::kLlamaTextEncoder:
      return llama_text_encoder_rules();
    case Naming::kBareClipVision:
      return bare_clip_vision_rules();
    default:
      return none;
  }
}

/// What follows the pattern in the name, if that begins with it; `number` receives what '#' stands for.
std::optional<std::string_view> rest_after(std::string_view pattern, std::string_view name,
                                           std::string_view &number) {
  size_t at = 0;
  for (const char expected : pattern) {
    if (expected != '#') {
      if (at == name.size() || name[at++] != expected) return std::nullopt;
      continue;
    }
    const size_t begin = at;
    while (at < name.size() && std::isdigit(static_cast<unsigned char>(name[at]))) ++at;
    if (at == begin) return std::nullopt;
    number = name.substr(begin, at - begin);
  }
  if (at != name.size() && name[at] != '.') return std::nullopt;
  return name.substr(at);
}

std::string rename(std::string_view name, const Rules &rules, std::string Rule::*from,
                   std::string Rule::*to) {
  for (const Rule &rule : rules) {
    std::string_view number;
    const auto rest = rest_after(rule.*from, name, number);
    if (!rest) continue;
    std::string renamed = rule.*to;
    if (const size_t at = renamed.find('#'); at != std::string::npos) renamed.replace(at, 1, number);
    return renamed.append(*rest);
  }
  return std::string(name);
}

}  // namespace

std::string stored_name(Naming naming, std::string_view diffusers) {
  return rename(diffusers, rules_of(naming), &Rule::diffusers, &Rule::original);
}

std::string diffusers_name(Naming naming, std::string_view stored) {
  return rename(stored, rules_of(naming), &Rule::original, &Rule::diffusers);
}

bool is_of_image(std::string_view name) {
  static constexpr std::string_view kParts[] = {"k_img",      "v_img",        "img_emb",       "add_k_proj",
                                                "add_v_proj", "norm_added_k", "image_embedder"};
  return std::ranges::any_of(kParts, [name](std::string_view part) { return name.find(part) != name.npos; });
}

std::string list_names(const std::vector<std::string> &names, size_t shown) {
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), shown); ++i) text += (i ? ", " : "") + names[i];
  return names.size() > shown ? text + " and " + std::to_string(names.size() - shown) + " more" : text;
}

}  // namespace wan
