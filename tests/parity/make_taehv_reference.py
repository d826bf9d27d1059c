#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write taehv.safetensors: what the tiny decoders of github.com/madebyollin/taehv compute, in float32 on the CPU.

  python3 tests/parity/make_taehv_reference.py DIR      (needs torch 2.11.0; DIR has taehv.py of commit 1f14a56)

z16 is built as taew2_1, z48 as taew2_2, both with fewer channels and random weights. Of each:
  NAME.decoder.*                the weights, by the published files' names
  NAME.latents [1,Z,4,2,3]      as the denoiser leaves them; some are beyond the decoder's clamp
  NAME.frames [1,3,13,h,w]      in [0, 1], of the whole clip
"""
import os
import sys

import torch
from safetensors.torch import save_file
from torch import nn

HERE = os.path.dirname(os.path.abspath(__file__))
CHANNELS = (16, 8, 6, 4)


def make_decoder(taehv, z_dim, patch_size):
    layers = [taehv.Clamp(), taehv.conv(z_dim, CHANNELS[0]), nn.ReLU()]
    for stage, channels in enumerate(CHANNELS[:3]):
        layers += [taehv.MemBlock(channels, channels) for _ in range(3)]
        layers += [nn.Upsample(scale_factor=2), taehv.TGrow(channels, 1 if stage == 0 else 2),
                   taehv.conv(channels, CHANNELS[stage + 1], bias=False)]
    return nn.Sequential(*layers, nn.ReLU(), taehv.conv(CHANNELS[3], 3 * patch_size**2))


def randomise(decoder, generator):
    for name, parameter in sorted(decoder.named_parameters()):
        gain = 0.1 if name.endswith("bias") else 1.2 / parameter[0].numel() ** 0.5
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * gain)


def centre(model, latents):
    """The frames fill [0, 1] and are seldom clamped."""
    sequence = latents[0]
    for layer in model.decoder:
        past = torch.cat([torch.zeros_like(sequence[:1]), sequence[:-1]])
        sequence = layer(sequence, past) if hasattr(layer, "skip") else layer(sequence)
    last = model.decoder[-1]
    scale = 0.2 / float(sequence.std())
    last.weight.data.mul_(scale)
    last.bias.data.sub_(float(sequence.mean())).mul_(scale).add_(0.5)


def reference(taehv, name, z_dim, patch_size, out):
    generator = torch.Generator().manual_seed(z_dim)
    model = taehv.TAEHV(checkpoint_path=None, patch_size=patch_size, latent_channels=z_dim).eval()
    model.decoder = make_decoder(taehv, z_dim, patch_size)
    randomise(model.decoder, generator)
    latents = torch.randn(1, 4, z_dim, 2, 3, generator=generator) * 2
    centre(model, latents)
    whole = model.decode_video(latents, parallel=True, show_progress_bar=False)
    steps = model.decode_video(latents, parallel=False, show_progress_bar=False)
    assert torch.allclose(whole, steps, atol=1e-5)
    print(name, tuple(whole.shape), "clamped:", float(((whole == 0) | (whole == 1)).float().mean()))
    out.update({f"{name}.decoder.{key}": value for key, value in model.decoder.state_dict().items()})
    out[f"{name}.latents"] = latents.transpose(1, 2).contiguous()
    out[f"{name}.frames"] = whole.transpose(1, 2).contiguous()


def main(directory):
    sys.path.insert(0, directory)
    import taehv

    torch.set_num_threads(1)
    out = {}
    with torch.inference_mode():
        reference(taehv, "z16", 16, 1, out)
        reference(taehv, "z48", 48, 2, out)
    save_file(out, os.path.join(HERE, "taehv.safetensors"))


if __name__ == "__main__":
    main(*sys.argv[1:])
