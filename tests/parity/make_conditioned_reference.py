#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write conditioned.safetensors: whole generations from pictures by Diffusers' pipelines, in float32 on the CPU; and conditioned/, the
transformers that they ran with and what Diffusers says of them.

  python3 tests/parity/make_conditioned_reference.py   (needs torch 2.11.0, torchvision 0.26.0, diffusers 0.40.0, transformers 5.17.0,
                                                        ftfy, Pillow 13.0.0; other versions of Pillow make pictures smaller in another way)

Tokenizer, text encoder and the VAE with 16 latents are the embedded model's, the one with 48 and CLIP those of make_vae_reference.py and
make_image_reference.py. The transformers have random weights, which bfloat16 holds exactly and which are stored so:
  conditioned/i2v.safetensors   36 channels, with the image branch and the position embedding for two pictures. Each model takes of it what
                                it has; the second expert of I2V-A14B is the first one with its two blocks changed for each other.
  conditioned/ti2v.safetensors  48 channels
  conditioned/configs.json      of each model what save_pretrained writes: model_index, transformer, scheduler, image_encoder
Of each run R (MODEL.KIND, see RUNS):
  R.image, R.last_image [h,w,3] uint8        the pictures
  R.condition                                what prepare_latents returns beside the noise: [1,20,T,h,w] (mask 4, latents 16), [1,48,1,h,w]
  R.step.0.{input,timestep,cond,uncond}      the model's arguments and both outputs
  R.step.K.latents [1,z,T,h,w]               after the scheduler's step K
  R.latents                                  after the loop: of TI2V-5B with the clean frame put back
  R.image_embeds [pictures,17,32]            CLIP's
  R.frames [9,64,96,3] uint8                 the video
"""
import json
import math
import os
import shutil
import tempfile

import numpy as np
import PIL
import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from safetensors.torch import save_file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

HERE = os.path.dirname(os.path.abspath(__file__))
EMBEDDED = os.path.join(HERE, "../../models/wan-tiny")
FOLDER = os.path.join(HERE, "conditioned")
WIDTH, HEIGHT, FRAMES, STEPS, SEED = 96, 64, 9, 4, 42
PROMPT, NEGATIVE = "a small red ring moving up", "a green star"
CLIP_SIZE, CLIP_DIM, CLIP_TOKENS = 56, 32, 17


def picture(width, height, kind):
    """With edges and gradients, by whole numbers: the same everywhere."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    r = (x * 255 // width + 37 * kind) % 256
    g = ((x * x + 3 * y * y) // (7 + kind)) % 256
    b = np.where((x - width // 2) ** 2 + (y - height // 2) ** 2 < (min(width, height) // (3 + kind)) ** 2, 240, 20)
    return PIL.Image.fromarray(np.stack([r, g, b], -1).astype(np.uint8))


def transformer(seed, **more):
    """Every parameter random and none without effect: norms near 1, biases and tables not 0."""
    model = WanTransformer3DModel(**dict(dict(num_attention_heads=2, attention_head_dim=64, in_channels=16, out_channels=16, text_dim=128,
                                              freq_dim=64, ffn_dim=192, num_layers=2), **more)).eval()
    g = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        r = torch.randn(p.shape, generator=g)
        if name.endswith("weight") and p.ndim == 1:
            r = 1 + 0.1 * r
        elif name.endswith("bias"):
            r = 0.1 * r
        elif "scale_shift_table" in name or "pos_embed" in name:
            r = 0.3 * r
        else:
            r = r / math.sqrt(p[0].numel())
        p.data.copy_(r.bfloat16().float())
    return model


def part_of(whole, **config):
    """A model of another configuration with those of the weights that it has."""
    model = WanTransformer3DModel.from_config(dict(whole.config, **config)).eval()
    model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in model.state_dict()})
    return model


def with_blocks_changed(model):
    other = WanTransformer3DModel.from_config(model.config).eval()
    swap = {"blocks.0.": "blocks.1.", "blocks.1.": "blocks.0."}
    other.load_state_dict({next((swap[s] + k[len(s):] for s in swap if k.startswith(s)), k): v for k, v in model.state_dict().items()})
    return other


def scheduler(shift):
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=shift)


def parts(shift, vae):
    return dict(tokenizer=AutoTokenizer.from_pretrained(os.path.join(EMBEDDED, "tokenizer")), scheduler=scheduler(shift),
                text_encoder=UMT5EncoderModel.from_pretrained(EMBEDDED, subfolder="text_encoder", dtype=torch.float32).eval(),
                vae=AutoencoderKLWan.from_pretrained(vae, torch_dtype=torch.float32).eval())


def clip():
    processor = CLIPImageProcessor(do_resize=True, size={"shortest_edge": CLIP_SIZE}, do_center_crop=True,
                                   crop_size={"height": CLIP_SIZE, "width": CLIP_SIZE})
    return dict(image_encoder=CLIPVisionModel.from_pretrained(os.path.join(HERE, "clip"), dtype=torch.float32).eval(), image_processor=processor)


def pipelines():
    whole = transformer(21, in_channels=36, image_dim=CLIP_DIM, added_kv_proj_dim=128, pos_embed_seq_len=2 * CLIP_TOKENS)
    save_file({k: v.bfloat16().contiguous() for k, v in whole.state_dict().items()}, os.path.join(FOLDER, "i2v.safetensors"))
    small = transformer(31, in_channels=48, out_channels=48)
    save_file({k: v.bfloat16().contiguous() for k, v in small.state_dict().items()}, os.path.join(FOLDER, "ti2v.safetensors"))
    embedded_vae, vae48 = os.path.join(EMBEDDED, "vae"), os.path.join(HERE, "vae48")
    high = part_of(whole, image_dim=None, added_kv_proj_dim=None, pos_embed_seq_len=None)
    return {
        "i2v-a14b": WanImageToVideoPipeline(transformer=high, transformer_2=with_blocks_changed(high), boundary_ratio=0.9, image_encoder=None,
                                            image_processor=None, **parts(5.0, embedded_vae)),
        "ti2v-5b": WanPipeline(transformer=small, expand_timesteps=True, **parts(5.0, vae48)),
        "i2v-21": WanImageToVideoPipeline(transformer=part_of(whole, pos_embed_seq_len=None), **clip(), **parts(3.0, embedded_vae)),
        "flf2v-21": WanImageToVideoPipeline(transformer=whole, **clip(), **parts(16.0, embedded_vae)),
    }


def configs(pipe):
    """As a saved pipeline has them."""
    with tempfile.TemporaryDirectory() as folder:
        pipe.save_pretrained(folder)
        names = {"model_index": "model_index.json", "transformer": "transformer/config.json", "scheduler": "scheduler/scheduler_config.json",
                 "image_encoder": "image_encoder/config.json"}
        return {k: json.load(open(os.path.join(folder, v))) for k, v in names.items() if os.path.exists(os.path.join(folder, v))}


class Recorder:
    """Wraps the parts of a pipeline, and notes what passes between them."""

    def __init__(self, pipe, out, run):
        self.out, self.run, self.calls, self.step, self.undo = out, run, [], 0, []
        self.wrap(pipe, "prepare_latents", self.prepared)
        self.wrap(pipe.scheduler, "step", self.stepped)
        for name in ("transformer", "transformer_2"):
            if getattr(pipe, name, None) is not None:
                self.wrap(getattr(pipe, name), "forward", lambda result, **k: self.calls.append((k, result[0])))
        if getattr(pipe, "image_encoder", None) is not None:
            self.wrap(pipe.image_encoder, "forward", lambda result, *a, **k: self.put("image_embeds", result.hidden_states[-2]))

    def put(self, name, value):
        self.out[f"{self.run}.{name}"] = value.detach().clone().contiguous()

    def wrap(self, owner, name, after):
        original = getattr(owner, name)

        def wrapped(*args, **kwargs):
            result = original(*args, **kwargs)
            after(result, *args, **kwargs)
            return result
        object.__setattr__(owner, name, wrapped)
        self.undo.append(lambda: object.__setattr__(owner, name, original))

    def prepared(self, result, *args, **kwargs):
        if not isinstance(result, torch.Tensor):
            self.put("condition", result[1])

    def stepped(self, result, output, t, sample, *args, **kwargs):
        if self.step == 0:
            self.put("step.0.input", self.calls[0][0]["hidden_states"])
            self.put("step.0.timestep", self.calls[0][0]["timestep"].float())
            self.put("step.0.cond", self.calls[0][1])
            self.put("step.0.uncond", self.calls[1][1])
        self.put(f"step.{self.step}.latents", result[0])
        self.calls, self.step = [], self.step + 1

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for undo in self.undo:
            undo()


def run(pipe, out, name, image=None, last_image=None, guidance=(3.5, None)):
    pipe.set_progress_bar_config(disable=True)
    more = {k: v for k, v in (("image", image), ("last_image", last_image), ("guidance_scale_2", guidance[1])) if v is not None}
    arguments = dict(prompt=PROMPT, negative_prompt=NEGATIVE, width=WIDTH, height=HEIGHT, num_frames=FRAMES, num_inference_steps=STEPS,
                     guidance_scale=guidance[0], **more)
    for key in ("image", "last_image"):
        if key in more:
            out[f"{name}.{key}"] = torch.from_numpy(np.array(more[key]))
    with Recorder(pipe, out, name):
        frames = pipe(generator=torch.Generator().manual_seed(SEED), output_type="np", **arguments).frames[0]
    out[f"{name}.frames"] = torch.from_numpy((frames * 255).round().astype(np.uint8))
    out[f"{name}.latents"] = pipe(generator=torch.Generator().manual_seed(SEED), output_type="latent", **arguments).frames
    print(f"{name}: deviation of the frames {frames.std():.3f}, of the latents {float(out[f'{name}.latents'].std()):.3f}")


@torch.no_grad()
def main():
    assert PIL.__version__ == "13.0.0", PIL.__version__
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    pipes, out = pipelines(), {}
    with open(os.path.join(FOLDER, "configs.json"), "w") as file:
        json.dump({name: configs(pipe) for name, pipe in pipes.items()}, file, indent=1)
        file.write("\n")
    first, last = picture(100, 70, 0), picture(60, 90, 1)
    run(pipes["i2v-a14b"], out, "i2v-a14b.first", first, guidance=(3.5, 3.0))
    run(pipes["i2v-a14b"], out, "i2v-a14b.both", first, last, guidance=(3.5, 3.0))
    run(pipes["ti2v-5b"], out, "ti2v-5b.text", guidance=(5.0, None))
    run(WanImageToVideoPipeline(**pipes["ti2v-5b"].components, expand_timesteps=True), out, "ti2v-5b.first", first, guidance=(5.0, None))
    run(pipes["i2v-21"], out, "i2v-21.first", first, guidance=(5.0, None))
    run(pipes["flf2v-21"], out, "flf2v-21.both", first, last, guidance=(5.5, None))
    save_file({k: v.contiguous().clone() for k, v in out.items()}, os.path.join(HERE, "conditioned.safetensors"))


if __name__ == "__main__":
    main()
