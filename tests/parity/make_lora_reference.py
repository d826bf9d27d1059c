#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write lora.safetensors: what Diffusers makes of LoRAs of every style, fused, in float32 on the CPU.

  python3 tests/parity/make_lora_reference.py        (needs torch 2.11.0, diffusers 0.40.0, transformers 5.17.0, peft 0.21.2)

  lora.MODULE.{down,up,alpha,diff_b}      a random LoRA by Diffusers' module names, float16; ranks differ. Ranks and alphas
                                          are powers of two, since Diffusers multiplies them into the float16 matrices
  latents, timestep, embedding            the input of every output
  KIND.{transformer,transformer_2}        output of the expert with the LoRA of that kind (KINDS below)
  KIND.weight.NAME                        the first rows of some of transformer's fused weights
"""
import json
import os
import tempfile

import torch
from diffusers import WanPipeline
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../../models/wan-tiny")
ROWS = 2
SHOWN = ["blocks.1.attn2.to_out.0.weight", "blocks.0.ffn.net.0.proj.weight", "blocks.0.attn1.to_q.bias", "proj_out.bias"]
BLOCKS = range(2)
IN_BLOCK = {f"attn{a}.{d}": f"{o}.{p}" for a, o in ((1, "self_attn"), (2, "cross_attn"))
            for d, p in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"))}
IN_BLOCK |= {"ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2"}
OUTSIDE = {"condition_embedder.text_embedder.linear_1": "text_embedding.0",
           "condition_embedder.text_embedder.linear_2": "text_embedding.2",
           "condition_embedder.time_embedder.linear_1": "time_embedding.0",
           "condition_embedder.time_embedder.linear_2": "time_embedding.2",
           "condition_embedder.time_proj": "time_projection.1", "proj_out": "head.head"}
BLOCK_MODULES = {f"blocks.{i}.{d}": f"blocks.{i}.{o}" for i in BLOCKS for d, o in IN_BLOCK.items()}
MODULES = BLOCK_MODULES | OUTSIDE


def random_lora(model):
    lora = {}
    for k, module in enumerate(MODULES):
        out, width = model.get_submodule(module).weight.shape
        rank = 4 if "ffn" in module else 2
        lora[module] = {"down": torch.randn(rank, width) * width**-0.5, "up": torch.randn(out, rank) * 0.3,
                        "alpha": torch.tensor(2.0 ** (k % 3)), "diff_b": torch.randn(out) * 0.1}
    return {m: {part: t.half() for part, t in parts.items()} for m, parts in lora.items()}


# The kinds: state dict, metadata. Diffusers takes no alpha outside of the blocks, and from kohya's trainers only blocks.

def original(lora):
    out = {}
    for module, name in MODULES.items():
        p = lora[module]
        out[f"diffusion_model.{name}.lora_down.weight"], out[f"diffusion_model.{name}.lora_up.weight"] = p["down"], p["up"]
        out[f"diffusion_model.{name}.diff_b"] = p["diff_b"]
        if module in BLOCK_MODULES:
            out[f"diffusion_model.{name}.alpha"] = p["alpha"]
    return out, None


def comfyui(lora):
    out = {}
    for module, name in BLOCK_MODULES.items():
        p = lora[module]
        out[f"diffusion_model.{name}.lora_A.weight"], out[f"diffusion_model.{name}.lora_B.weight"] = p["down"], p["up"]
    return out, None


def kohya(lora):
    out = {}
    for module, name in BLOCK_MODULES.items():
        flat, p = "lora_unet_" + name.replace(".", "_"), lora[module]
        out[f"{flat}.lora_down.weight"], out[f"{flat}.lora_up.weight"], out[f"{flat}.alpha"] = p["down"], p["up"], p["alpha"]
    return out, None


def peft(lora):
    out = {}
    for module in MODULES:
        p = lora[module]
        out[f"transformer.{module}.lora_A.weight"], out[f"transformer.{module}.lora_B.weight"] = p["down"], p["up"]
    return out, None


def adapter(lora):
    out, _ = peft(lora)
    metadata = {"r": 2, "lora_alpha": 5, "target_modules": list(MODULES),
                "rank_pattern": {m: 4 for m in MODULES if "ffn" in m},
                "alpha_pattern": {m: 7 for m in MODULES if m.endswith("ffn.net.2")}}
    return out, {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in metadata.items()})}


KINDS = {"original": [(original, 1.0)], "comfyui": [(comfyui, 0.75)], "kohya": [(kohya, 1.0)], "peft": [(peft, 1.0)],
         "adapter": [(adapter, -0.5)], "two": [(original, 0.5), (comfyui, -0.25)]}


def load(pipe, lora, kind):
    for second in (False, True):
        names = []
        for k, (style, _) in enumerate(KINDS[kind]):
            state, metadata = style(lora)
            names.append(f"{'low' if second else 'high'}{k}")
            with tempfile.TemporaryDirectory() as directory:
                save_file(state, os.path.join(directory, "lora.safetensors"), metadata)
                pipe.load_lora_weights(directory, weight_name="lora.safetensors", adapter_name=names[-1],
                                       load_into_transformer_2=second)
        expert = pipe.transformer_2 if second else pipe.transformer
        expert.set_adapters(names, [strength for _, strength in KINDS[kind]])
        expert.fuse_lora(adapter_names=names)
        expert.unload_lora()


@torch.no_grad()
def main():
    torch.manual_seed(11)
    pipe = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    lora = random_lora(pipe.transformer)
    out = {f"lora.{module}.{part}": t for module, parts in lora.items() for part, t in parts.items()}
    embedding, _ = pipe.encode_prompt("a green star", "", max_sequence_length=512, device="cpu", dtype=torch.float32)
    out["latents"], out["timestep"] = torch.randn(1, 16, 2, 4, 6), torch.tensor([500])
    out["embedding"] = embedding[:, :8]  # the rest is zero
    assert not embedding[:, 8:].any()
    for kind in KINDS:
        pipe = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
        load(pipe, lora, kind)
        for name in ("transformer", "transformer_2"):
            out[f"{kind}.{name}"] = getattr(pipe, name)(out["latents"], out["timestep"], embedding, return_dict=False)[0]
        weights = pipe.transformer.state_dict()
        for name in SHOWN:
            out[f"{kind}.weight.{name}"] = weights[name][:ROWS] if weights[name].ndim > 1 else weights[name]
    save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "lora.safetensors"))


if __name__ == "__main__":
    main()
