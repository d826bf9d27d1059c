#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write names.json: Diffusers' names of the original Wan release's tensors, by Diffusers' own conversion.

  python3 tests/parity/make_names_reference.py        (needs diffusers 0.40.0)

Of the transformers all that is outside of the blocks and block 12, of the VAE all.
"""
import json
import os

import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers

HERE = os.path.dirname(os.path.abspath(__file__))


def both(*modules):
    return [f"{module}.{part}" for module in modules for part in ("weight", "bias")]


def transformer():
    names = both("patch_embedding", "text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2",
                 "time_projection.1", "head.head") + ["head.modulation", "blocks.12.modulation"]
    for attention in ("self_attn", "cross_attn"):
        names += both(*(f"blocks.12.{attention}.{part}" for part in "qkvo"))
        names += [f"blocks.12.{attention}.norm_{part}.weight" for part in "qk"]
    names += both(*(f"img_emb.proj.{part}" for part in (0, 1, 3, 4)), "blocks.12.cross_attn.k_img",
                  "blocks.12.cross_attn.v_img") + ["blocks.12.cross_attn.norm_k_img.weight"]
    return names + both("blocks.12.norm3", "blocks.12.ffn.0", "blocks.12.ffn.2")


def vae():
    names = both("conv1", "conv2", "decoder.upsamples.4.shortcut", "encoder.downsamples.3.shortcut", "encoder.downsamples.6.shortcut")
    blocks = []
    for half, direction, blocks_a_stage, stages in (("encoder", "down", 2, 4), ("decoder", "up", 3, 4)):
        names += both(f"{half}.conv1", f"{half}.head.2", f"{half}.middle.1.to_qkv", f"{half}.middle.1.proj")
        names += [f"{half}.head.0.gamma", f"{half}.middle.1.norm.gamma"]
        blocks += [f"{half}.middle.0", f"{half}.middle.2"]
        for k in range(stages * (blocks_a_stage + 1) - 1):
            if k % (blocks_a_stage + 1) < blocks_a_stage:
                blocks.append(f"{half}.{direction}samples.{k}")
                continue
            names += both(f"{half}.{direction}samples.{k}.resample.1")
            # Which stages halve or double the frames: the encoder's second and third, the decoder's first and second.
            if k in ((5, 8) if half == "encoder" else (3, 7)):
                names += both(f"{half}.{direction}samples.{k}.time_conv")
    for block in blocks:
        names += both(f"{block}.residual.2", f"{block}.residual.6")
        names += [f"{block}.residual.{k}.gamma" for k in (0, 3)]
    return names


def converted(names, convert):
    numbered = {name: torch.tensor(k) for k, name in enumerate(names)}
    return {diffusers: names[int(k)] for diffusers, k in convert(dict(numbered)).items()}


def main():
    out = {"transformer": converted(transformer(), convert_wan_transformer_to_diffusers),
           "vae": converted(vae(), convert_wan_vae_to_diffusers)}
    assert all(len(out[k]) == len(set(out[k].values())) for k in out)
    with open(os.path.join(HERE, "names.json"), "w") as file:
        json.dump(out, file, indent=0, sort_keys=True)


if __name__ == "__main__":
    main()
