// SPDX-License-Identifier: LGPL-2.1-or-later
//
// LoRAs of every style against Diffusers and PEFT, which fused them, in float32. lora.safetensors comes from
// make_lora_reference.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "checkpoint/lora.h"
#include "common/largest_error.h"
#include "common/temporary_directory.h"
#include "common/tiny_model.h"
#include "common/write_safetensors.h"
#include "transformer/wan_transformer_3d.h"

namespace wan::test {
namespace {

constexpr double kTolerance = 1e-5;

using Names = std::map<std::string, std::string>;  // of modules: Diffusers' and the original ones

Names block_modules() {
  const Names in_attention = {{"to_q", "q"}, {"to_k", "k"}, {"to_v", "v"}, {"to_out.0", "o"}};
  Names modules;
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    for (const auto &[diffusers, original] : in_attention) {
      modules[block + "attn1." + diffusers] = block + "self_attn." + original;
      modules[block + "attn2." + diffusers] = block + "cross_attn." + original;
    }
    modules[block + "ffn.net.0.proj"] = block + "ffn.0";
    modules[block + "ffn.net.2"] = block + "ffn.2";
  }
  return modules;
}

Names all_modules() {
  Names modules = block_modules();
  modules.merge(Names{{"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
                      {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
                      {"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
                      {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
                      {"condition_embedder.time_proj", "time_projection.1"},
                      {"proj_out", "head.head"}});
  return modules;
}

class LoraParity : public testing::Test, protected LargestError {
 protected:
  /// The reference's LoRA, with `prefix` + NAME + `down` and so on as its keys.
  Tensors spelled(const Names &modules, const std::string &prefix, const std::string &down,
                  const std::string &up) const {
    Tensors tensors;
    for (const auto &[module, name] : modules) {
      tensors[prefix + name + down] = part(module, "down");
      tensors[prefix + name + up] = part(module, "up");
    }
    return tensors;
  }
  at::Tensor part(const std::string &module, const std::string &name) const {
    return reference_["lora." + module + "." + name];
  }
  static Names diffusers_names() {
    Names names = all_modules();
    for (auto &[module, name] : names) name = module;
    return names;
  }

  Tensors original() const {
    Tensors tensors = spelled(all_modules(), "diffusion_model.", ".lora_down.weight", ".lora_up.weight");
    for (const auto &[module, name] : all_modules())
      tensors["diffusion_model." + name + ".diff_b"] = part(module, "diff_b");
    for (const auto &[module, name] : block_modules())
      tensors["diffusion_model." + name + ".alpha"] = part(module, "alpha");
    return tensors;
  }
  Tensors comfyui() const {
    return spelled(block_modules(), "diffusion_model.", ".lora_A.weight", ".lora_B.weight");
  }
  Tensors kohya() const {
    Names names = block_modules();
    for (auto &[module, name] : names) std::ranges::replace(name, '.', '_');
    Tensors tensors = spelled(names, "lora_unet_", ".lora_down.weight", ".lora_up.weight");
    for (const auto &[module, name] : names) tensors["lora_unet_" + name + ".alpha"] = part(module, "alpha");
    return tensors;
  }
  Tensors peft(const std::string &prefix = "transformer.", const std::string &adapter = "") const {
    return spelled(diffusers_names(), prefix, ".lora_A" + adapter + ".weight",
                   ".lora_B" + adapter + ".weight");
  }

  Lora lora(const Tensors &tensors, double strength,
            const std::map<std::string, std::string> &metadata = {}) {
    const auto path = directory_.path() / (std::to_string(files_++) + ".safetensors");
    write_safetensors(path, tensors, metadata);
    return {path, strength, strength};
  }

  /// Both experts with the LoRAs against what Diffusers made of those of `kind`.
  void expect_loras(const std::vector<Lora> &loras, const std::string &kind) {
    const at::Tensor latents = reference_["latents"].to(test_device());
    const at::Tensor tokens = reference_["embedding"].to(test_device());
    const at::Tensor embedding = at::constant_pad_nd(tokens, {0, 0, 0, 512 - tokens.size(1)});
    for (const std::string component : {"transformer", "transformer_2"}) {
      auto stored = std::make_unique<CheckpointWeights>(
          ComponentFiles{tiny_config().directory / component, "diffusion_pytorch_model"}, test_device(),
          [](uint64_t) {});
      const TensorShapes shapes = stored->shapes();
      LoraWeights source(std::move(stored), shapes, loras, component);
      const WanTransformer3DModel model(tiny_config().transformer, Weights(source, at::kFloat));
      EncodedContext context = model.encode(embedding);
      const RotaryEmbedding rotary = model.rotary(latents.size(2), latents.size(3), latents.size(4));
      const double timestep = reference_["timestep"].item<double>();
      const at::Tensor out = model(latents, {rotary, {{0, timestep}}, context, quiet()});
      expect_parity(out, reference_[kind + "." + component], kind + ", " + component, kTolerance);
      if (component == "transformer_2") continue;
      for (const std::string name : {"blocks.1.attn2.to_out.0.weight", "blocks.0.ffn.net.0.proj.weight",
                                     "blocks.0.attn1.to_q.bias", "proj_out.bias"}) {
        const at::Tensor expected = reference_[kind + ".weight." + name];
        const at::Tensor merged = source.load(name, shapes.at(name), at::kFloat);
        expect_parity(merged.narrow(0, 0, expected.size(0)), expected, kind + ", " + name, kTolerance);
      }
    }
  }

  const c10::InferenceMode inference_;
  const Reference reference_{"tests/parity/lora.safetensors"};
  const TemporaryDirectory directory_;
  int files_ = 0;
};

TEST_F(LoraParity, OriginalNamesWithAlphaAndBiases) {
  expect_loras({lora(original(), 1)}, "original");
}

TEST_F(LoraParity, ComfyUi) {
  expect_loras({lora(comfyui(), 0.75)}, "comfyui");
}

TEST_F(LoraParity, Kohya) {
  expect_loras({lora(kohya(), 1)}, "kohya");
}

TEST_F(LoraParity, PeftWithDiffusersNames) {
  expect_loras({lora(peft(), 1)}, "peft");
  expect_loras({lora(peft("base_model.model.", ".default"), 1)}, "peft");
  expect_loras({lora(peft(""), 1)}, "peft");
}

TEST_F(LoraParity, AlphasOfTheAdapterMetadata) {
  const std::string metadata =
      R"({"transformer.r": 2, "transformer.lora_alpha": 5, "transformer.alpha_pattern":
      {"blocks.0.ffn.net.2": 7, "^blocks.1.ffn.net.2": 7}})";
  expect_loras({lora(peft(), -0.5, {{"lora_adapter_metadata", metadata}})}, "adapter");
}

TEST_F(LoraParity, TwoAtOnce) {
  expect_loras({lora(original(), 0.5), lora(comfyui(), -0.25)}, "two");
}

}  // namespace
}  // namespace wan::test
