#!/usr/bin/env python3
"""Diffusers' figures beside wan-bench's: run both in one go on one machine.

  python3 tests/bench/peer_diffusers.py a14b    one A14B forward (bfloat16) and one z16 decode (float32), 832x480, 81
                                                frames, random weights, on CUDA
  python3 tests/bench/peer_diffusers.py tiny    the embedded model, 160x96, 33 frames, 16 steps, float32 on the CPU

Needs torch 2.11.0 and diffusers 0.40.0 (tiny also transformers 5.17.0). Prints seconds, the first run of each included.
"""
import json
import os
import sys
import time
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel


def timed(what, function, repeats):
    seconds, out = [], None
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        out = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(round(time.perf_counter() - start, 3))
    print(json.dumps({"what": what, "s": seconds}), flush=True)
    return out


def a14b():
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        transformer = WanTransformer3DModel(num_layers=40).to(torch.bfloat16).eval()
        latents, text = torch.randn(1, 16, 21, 60, 104), torch.randn(1, 512, 4096)
        torch.set_default_dtype(torch.float32)
        timestep = torch.tensor([900])
        timed("Diffusers A14B forward, bfloat16", lambda: transformer(latents, timestep, text, return_dict=False), 3)
        del transformer
        torch.cuda.empty_cache()
        vae = AutoencoderKLWan().eval()
        z = torch.randn(1, 16, 21, 60, 104)
        timed("Diffusers z16 decode to the host, float32", lambda: vae.decode(z, return_dict=False)[0].cpu(), 2)


def tiny():
    model = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/wan-tiny")
    pipe = WanPipeline.from_pretrained(model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generate = lambda: pipe("a red circle bouncing on a blue background", height=96, width=160, num_frames=33,
                            num_inference_steps=16, guidance_scale=2.5, output_type="latent").frames
    latents = timed("Diffusers text and denoise", generate, 2)
    timed("Diffusers decode", lambda: pipe.vae.decode(latents, return_dict=False), 2)


if __name__ == "__main__":
    with torch.no_grad():
        {"a14b": a14b, "tiny": tiny}[sys.argv[1] if len(sys.argv) > 1 else "tiny"]()
