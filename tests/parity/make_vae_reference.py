#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write vae.safetensors: what Diffusers' AutoencoderKLWan computes, in float32 on the CPU; and vae48/, a small one of TI2V-5B's kind.

  python3 tests/parity/make_vae_reference.py        (needs torch 2.11.0, diffusers 0.40.0)

vae16 is the embedded model's, vae48 has random weights (which bfloat16 holds exactly, and which are stored so). Of each:
  NAME.clip [1,3,9,H,W]                       frames; NAME.latents.N are the latents' means of its first N (of 6 the last is dropped)
  NAME.normalized                             latents.9 as the denoiser takes them
  NAME.tiled.small [1,3,5,h,w]                each pixel stands for 16 x 16 of the clip that is encoded in tiles
  NAME.tiled.latents                          and its latents' means
and of vae48 (vae16's decoder is in reference.safetensors):
  vae48.decoder.latents [1,48,4,2,3], vae48.decoder.chunk.K [1,3,1 or 4,32,48]
  vae48.decoder.tiled.latents [1,48,2,26,28], vae48.decoder.tiled.video: every 7th row and column from the 5th on
"""
import math
import os

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file

HERE = os.path.dirname(os.path.abspath(__file__))
EMBEDDED = os.path.join(HERE, "../../models/wan-tiny/vae")
TILED_OFFSET, TILED_STEP = 5, 7  # into the seams, and on both pixels of a patch


def randomise(vae, seed, gain=1.4):
    """Every parameter random, and none without effect: norms near 1, biases not 0."""
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(vae.named_parameters()):
        r = torch.randn(p.shape, generator=g)
        if name.endswith("gamma"):
            r = 1 + 0.1 * r
        elif name.endswith("bias"):
            r = 0.1 * r
        else:
            r = r * gain / math.sqrt(p[0].numel())
        p.data.copy_(r)


def make_vae48():
    """So wide that the decoder fills [-1, 1] without being clamped everywhere."""
    g = torch.Generator().manual_seed(1012)
    statistics = {"latents_mean": (torch.randn(48, generator=g) * 0.2).tolist(), "latents_std": (torch.rand(48, generator=g) + 0.4).tolist()}
    vae = AutoencoderKLWan(base_dim=4, decoder_base_dim=8, z_dim=48, is_residual=True, in_channels=12, out_channels=12, patch_size=2,
                           scale_factor_temporal=4, scale_factor_spatial=16, **statistics).eval()
    randomise(vae, 12)
    std = float(vae.decode(torch.randn(1, 48, 2, 4, 4, generator=g)).sample.std())
    vae.decoder.conv_out.weight.data.mul_(0.4 / std)
    vae.decoder.conv_out.bias.data.mul_(0.4 / std)
    for p in vae.parameters():
        p.data.copy_(p.data.bfloat16().float())
    return vae


def save_as_bfloat16(vae, folder):
    vae.save_pretrained(folder)
    path = os.path.join(folder, "diffusion_pytorch_model.safetensors")
    save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path, {"format": "pt"})


def encoder(vae, name, out, tiles):
    g = torch.Generator().manual_seed(5)
    scale = vae.config.scale_factor_spatial
    clip = torch.rand(1, 3, 9, 2 * scale, 3 * scale, generator=g) * 2 - 1
    out[f"{name}.clip"] = clip
    for frames in (1, 6, 9):
        out[f"{name}.latents.{frames}"] = vae.encode(clip[:, :, :frames]).latent_dist.mode()
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    out[f"{name}.normalized"] = (out[f"{name}.latents.9"] - mean) * (1.0 / std)
    small = torch.rand(1, 3, 5, *tiles, generator=g) * 2 - 1
    vae.enable_tiling()
    tiled = vae.encode(small.repeat_interleave(16, 3).repeat_interleave(16, 4)).latent_dist.mode()
    vae.disable_tiling()
    out[f"{name}.tiled.small"], out[f"{name}.tiled.latents"] = small, tiled


def decoder(vae, name, out):
    g = torch.Generator().manual_seed(6)
    z = torch.randn(1, 48, 4, 2, 3, generator=g)
    video = vae.decode(z).sample
    print(f"{name}: {float((video.abs() == 1).float().mean()):.1%} of the video is clamped")
    out[f"{name}.decoder.latents"] = z
    for k, first in enumerate((0, 1, 5, 9)):
        out[f"{name}.decoder.chunk.{k}"] = video[:, :, first : first + (1 if k == 0 else 4)]
    z = torch.randn(1, 48, 2, 26, 28, generator=g)
    vae.enable_tiling()
    video = vae.decode(z).sample
    vae.disable_tiling()
    out[f"{name}.decoder.tiled.latents"] = z
    out[f"{name}.decoder.tiled.video"] = video[..., TILED_OFFSET::TILED_STEP, TILED_OFFSET::TILED_STEP]


@torch.no_grad()
def main():
    torch.set_num_threads(1)
    out = {}
    encoder(AutoencoderKLWan.from_pretrained(EMBEDDED, torch_dtype=torch.float32), "vae16", out, (17, 20))
    vae48 = make_vae48()
    save_as_bfloat16(vae48, os.path.join(HERE, "vae48"))
    encoder(vae48, "vae48", out, (26, 28))
    decoder(vae48, "vae48", out)
    save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "vae.safetensors"))


if __name__ == "__main__":
    main()
