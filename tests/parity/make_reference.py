#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write reference.safetensors: what Diffusers and Transformers compute, in float32 on the CPU, part by part.

  python3 tests/parity/make_reference.py        (needs torch 2.11.0, diffusers 0.40.0, transformers 5.17.0)

golden.safetensors (models/make_golden.py) holds one whole generation; this file holds further inputs of each part:
  text.K.ids [1,512], text.K.mask [1,512], text.K.embedding [length,128]     UMT5EncoderModel
  rope.T.H.W.cos, .sin [L,64]                                                 WanRotaryPosEmbed, every second column
  block.{x,text,timestep,out}                                                 WanTransformerBlock 0 of transformer
  expert.K.{latents,timestep,transformer,transformer_2,transformer_bf16}      WanTransformer3DModel
  scheduler.NAME.STEPS.SHIFT.{sigmas,timesteps,samples}                       steps from scheduler.start with
                                                                              scheduler.velocity[i] as model output
  scheduler.NAME.{distilled,plain}.{sigmas,timesteps,samples}                 the same with explicit sigmas
  cache.{latents,out} [1,16,3,8,12], cache.threshold, cache.changes [16,2]     WanPipeline with FirstBlockCacheConfig: 16
                                                                              steps of expert.embedding against the
                                                                              empty prompt; relative change of the first
                                                                              block's residual in each forward (-1: none
                                                                              to compare with)
  vae.latents [1,16,4,6,10], vae.chunk.K [1,3,1 or 4,48,80]                   AutoencoderKLWan decoder, chunk by chunk
  vae.tiled.latents [1,16,2,34,50], vae.tiled.video [1,3,5,34,50]             the same in tiles, every 8th row and column
                                                                              from TILED_OFFSET on
"""
import os
import numpy as np
import torch
from diffusers import (AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline,
                       WanTransformer3DModel)
from diffusers.hooks.first_block_cache import FBCHeadBlockHook, FirstBlockCacheConfig
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "../../models/wan-tiny")
PROMPTS = ["a green star", "two yellow hearts spinning on a checkerboard, 4k", " ".join(["a small red ring"] * 200)]
CACHE_THRESHOLD = 0.16
TILED_OFFSET = 5  # into the tiles' seams, which are at multiples of 8
STEPS, SHIFTS = (1, 2, 4, 8, 16, 20, 40, 50), (1.0, 3.0, 5.0, 12.0)
SIGMAS = {"distilled": ((1.0, 0.75, 0.5, 0.25), 5.0), "plain": ((0.9, 0.62, 0.31, 0.3, 0.01), 1.0)}  # before a shift


def text(pipe, out):
    for k, prompt in enumerate(PROMPTS):
        t = pipe.tokenizer([prompt], padding="max_length", max_length=512, truncation=True, add_special_tokens=True,
                           return_attention_mask=True, return_tensors="pt")
        out[f"text.{k}.ids"], out[f"text.{k}.mask"] = t.input_ids, t.attention_mask
        encoded = pipe.text_encoder(t.input_ids, t.attention_mask).last_hidden_state
        out[f"text.{k}.embedding"] = encoded[0, : int(t.attention_mask.sum())]


def rope(pipe, out):
    for t, h, w in ((3, 4, 5), (1, 1, 1), (21, 2, 7)):
        cos, sin = pipe.transformer.rope(torch.zeros(1, 16, t, 2 * h, 2 * w))
        out[f"rope.{t}.{h}.{w}.cos"], out[f"rope.{t}.{h}.{w}.sin"] = cos[0, :, 0, 0::2], sin[0, :, 0, 1::2]


def block(pipe, out):
    dim = pipe.transformer.config.num_attention_heads * pipe.transformer.config.attention_head_dim
    x, context, timestep = torch.randn(1, 60, dim), torch.randn(1, 512, dim), torch.randn(1, 6, dim)
    rotary = pipe.transformer.rope(torch.zeros(1, 16, 3, 8, 10))
    y = pipe.transformer.blocks[0](x, context, timestep, rotary)
    out.update({"block.x": x, "block.text": context, "block.timestep": timestep, "block.out": y})


def experts(pipe, out):
    half = WanTransformer3DModel.from_pretrained(MODEL, subfolder="transformer", torch_dtype=torch.bfloat16)
    embedding, _ = pipe.encode_prompt(PROMPTS[1], "", max_sequence_length=512, device="cpu", dtype=torch.float32)
    out["expert.embedding"] = embedding
    for k, (timestep, shape) in enumerate(((999, (3, 8, 12)), (500, (1, 4, 6)), (17, (5, 10, 4)))):
        z, t = torch.randn(1, 16, *shape), torch.tensor([timestep])
        out[f"expert.{k}.latents"], out[f"expert.{k}.timestep"] = z, t
        for name in ("transformer", "transformer_2"):
            model = getattr(pipe, name)
            out[f"expert.{k}.{name}"] = model(z, t, embedding, return_dict=False)[0]
        out[f"expert.{k}.transformer_bf16"] = half(z.bfloat16(), t, embedding.bfloat16(), return_dict=False)[0]


def scheduler_runs(pipe, out, run, shift, **timesteps):
    both = {"unipc": UniPCMultistepScheduler.from_config(pipe.scheduler.config, flow_shift=shift),
            "euler": FlowMatchEulerDiscreteScheduler(shift=shift)}
    for name, s in both.items():
        s.set_timesteps(**timesteps)
        s.set_begin_index(0)
        x, samples = out["scheduler.start"], []
        for i, t in enumerate(s.timesteps):
            x = s.step(out["scheduler.velocity"][i], t, x, return_dict=False)[0]
            samples.append(x)
        key = f"scheduler.{name}.{run}"
        out[key + ".sigmas"], out[key + ".timesteps"] = s.sigmas.float(), s.timesteps.float()
        out[key + ".samples"] = torch.cat(samples)


def schedulers(pipe, out):
    out["scheduler.start"], out["scheduler.velocity"] = torch.randn(1, 16), torch.randn(max(STEPS), 1, 16)
    for steps in STEPS:
        for shift in SHIFTS:
            scheduler_runs(pipe, out, f"{steps}.{shift:g}", shift, num_inference_steps=steps)
    for name, (sigmas, shift) in SIGMAS.items():
        scheduler_runs(pipe, out, name, shift, sigmas=np.array(sigmas))


def vae(pipe, out):
    z = torch.randn(1, 16, 4, 6, 10)
    video = pipe.vae.decode(z, return_dict=False)[0]
    out["vae.latents"] = z
    for k, first in enumerate((0, 1, 5, 9)):
        out[f"vae.chunk.{k}"] = video[:, :, first : first + (1 if k == 0 else 4)]


def tiled_vae(pipe, out):
    z = torch.randn(1, 16, 2, 34, 50)
    pipe.vae.enable_tiling()
    video = pipe.vae.decode(z, return_dict=False)[0]
    pipe.vae.disable_tiling()
    out["vae.tiled.latents"], out["vae.tiled.video"] = z, video[..., TILED_OFFSET::8, TILED_OFFSET::8]


def step_cache(pipe, out):
    changes = []
    decide = FBCHeadBlockHook._should_compute_remaining_blocks

    def recorded(self, residual):
        last = self.state_manager.get_state().head_block_residual
        changes.append(-1.0 if last is None else float((residual - last).abs().mean() / last.abs().mean()))
        return decide(self, residual)

    FBCHeadBlockHook._should_compute_remaining_blocks = recorded
    for expert in (pipe.transformer, pipe.transformer_2):
        expert.enable_cache(FirstBlockCacheConfig(threshold=CACHE_THRESHOLD))
    _, negative = pipe.encode_prompt("", "", max_sequence_length=512, device="cpu", dtype=torch.float32)
    z = torch.randn(1, 16, 3, 8, 12)
    result = pipe(prompt_embeds=out["expert.embedding"], negative_prompt_embeds=negative, latents=z, height=64, width=96,
                  num_frames=9, num_inference_steps=16, guidance_scale=2.5, output_type="latent").frames
    changes = torch.tensor(changes).view(16, 2)
    near = (changes / CACHE_THRESHOLD - 1).abs().min()
    assert near > 0.01, f"a change is within {near:%} of the threshold: choose another"
    print("forwards that were cached:", int(((changes >= 0) & (changes <= CACHE_THRESHOLD)).sum()), "of 32")
    out.update({"cache.latents": z, "cache.out": result, "cache.changes": changes,
                "cache.threshold": torch.tensor(CACHE_THRESHOLD, dtype=torch.float64)})


@torch.no_grad()
def main():
    torch.manual_seed(7)
    pipe = WanPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
    out = {}
    for part in (text, rope, block, experts, schedulers, vae, tiled_vae, step_cache):
        part(pipe, out)
    save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "reference.safetensors"))


if __name__ == "__main__":
    main()
