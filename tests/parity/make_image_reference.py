#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write image.safetensors: what Pillow, Diffusers and Transformers make of pictures; and clip/, a small vision tower of CLIP.

  python3 tests/parity/make_image_reference.py      (needs torch 2.11.0, torchvision 0.26.0, diffusers 0.40.0, transformers 5.17.0,
                                                    Pillow 13.0.0; other versions of Pillow make other pictures smaller)

  picture.HxW [H,W,3] uint8                         noise, of which no rounding goes unseen
  lanczos.HxW.hxw, bicubic.HxW.hxw [h,w,3] uint8    the same by Pillow's resize
  vae.pixels [1,3,1,32,48]                          picture.37x53 by VideoProcessor
  clip.picture.K [H,W,3] uint8                      each pixel stands for 4 x 4 of the picture that CLIPImageProcessor gets
  clip.crop.K [1,3,75,75] uint8, clip.pixels.K      every 3rd row and column from 1 on of what it resizes and crops, and of the result
  clip.input [2,3,56,56], clip.hidden [2,17,32]     what clip/ makes of a picture: hidden_states[-2]
"""
import math
import os

import numpy as np
import PIL
import torch
from diffusers.video_processor import VideoProcessor
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

HERE = os.path.dirname(os.path.abspath(__file__))
# Smaller, larger, and one of each; of one pixel; of the same size; far smaller in one direction alone, which decides what comes first.
SIZES = [((37, 53), ((32, 48), (64, 96), (16, 96), (64, 24), (37, 53), (37, 20), (9, 53), (1, 1), (8, 48))),
         ((1, 1), ((3, 5),)), ((1, 40), ((16, 16),)), ((90, 7), ((16, 32), (4, 6))), ((60, 64), ((7, 38), (8, 38), (40, 54)))]
CLIP_SIZES = (41, 60), (113, 75), (14, 14), (56, 61)


def picture(rng, height, width):
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def resized(rng, out):
    for (height, width), sizes in SIZES:
        image = picture(rng, height, width)
        out[f"picture.{height}x{width}"] = image
        for h, w in sizes:
            for name in ("lanczos", "bicubic"):
                small = Image.fromarray(image).resize((w, h), getattr(Image.Resampling, name.upper()))
                out[f"{name}.{height}x{width}.{h}x{w}"] = np.array(small)


def clip_processor(rng, out):
    processor = CLIPImageProcessor(do_resize=True, size={"shortest_edge": 224}, do_center_crop=True, crop_size={"height": 224, "width": 224})
    for k, size in enumerate(CLIP_SIZES):
        small = picture(rng, *size)
        image = Image.fromarray(small.repeat(4, 0).repeat(4, 1))
        crop = processor(images=image, return_tensors="pt", do_rescale=False, do_normalize=False).pixel_values
        out[f"clip.picture.{k}"], out[f"clip.crop.{k}"] = small, crop[..., 1::3, 1::3].to(torch.uint8)
        out[f"clip.pixels.{k}"] = processor(images=image, return_tensors="pt").pixel_values[..., 1::3, 1::3]


def clip_vision(out):
    g = torch.Generator().manual_seed(61)
    config = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14,
                              projection_dim=32, hidden_act="gelu", layer_norm_eps=1e-5)
    model = CLIPVisionModel(config).eval()
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=g)
        r = 1 + 0.1 * r if name.endswith("weight") and p.ndim == 1 else 0.1 * r if name.endswith("bias") else r / math.sqrt(p[0].numel())
        p.data.copy_(r.bfloat16().float())
    out["clip.input"] = torch.randn(2, 3, 56, 56, generator=g)
    out["clip.hidden"] = model(pixel_values=out["clip.input"], output_hidden_states=True).hidden_states[-2]
    folder = os.path.join(HERE, "clip")
    model.save_pretrained(folder)
    path = os.path.join(folder, "model.safetensors")
    # As Transformers 4 wrote the released ones; 5.17 leaves the prefix out.
    tensors = {"vision_model." + k.removeprefix("vision_model."): v.bfloat16() for k, v in load_file(path).items()}
    tensors["visual_projection.weight"] = torch.randn(32, 32, generator=g).bfloat16()
    save_file(tensors, path, {"format": "pt"})


@torch.no_grad()
def main():
    assert PIL.__version__ == "13.0.0", PIL.__version__
    torch.set_num_threads(1)
    rng, out = np.random.default_rng(3), {}
    resized(rng, out)
    image = Image.fromarray(out["picture.37x53"])
    out["vae.pixels"] = VideoProcessor(vae_scale_factor=8).preprocess(image, height=32, width=48).unsqueeze(2)
    clip_processor(rng, out)
    clip_vision(out)
    save_file({k: torch.as_tensor(v).contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "image.safetensors"))


if __name__ == "__main__":
    main()
