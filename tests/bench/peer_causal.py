#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The authors' own causal pipelines at full size, random weights, beside wan-bench causal: seconds of a steady section.

  git clone https://github.com/guandeh17/Self-Forcing
  git clone --branch v1.0 https://github.com/NVlabs/LongLive LongLive1
  git clone https://github.com/NVlabs/LongLive LongLive2
  python3 tests/bench/peer_causal.py self-forcing Self-Forcing 832x480
  python3 tests/bench/peer_causal.py longlive LongLive1 832x480
  python3 tests/bench/peer_causal.py longlive2 LongLive2 960x544

Their networks, caches, schedulers and loops run unchanged, in bfloat16 with cuDNN's attention; text encoder and VAE,
which do not count, are left out, and so are modules that only they need. The time of a section is the difference between a
short video and one of four sections more. Needs torch 2.11.0, diffusers and transformers. Prints JSON.
"""
import argparse
import contextlib
import io
import json
import os
import sys
import time
import types

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

DTYPE = torch.bfloat16
TEXT_LENGTH, TEXT_DIM = 512, 4096
Settings = types.SimpleNamespace


class Options(dict):
    """A dictionary whose keys are attributes, too, as OmegaConf's are."""

    def __getattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        return self[name]


def stand_in(name, path=None, **attributes):
    """A module that is not imported from its file: a package without its __init__, or what nobody calls here."""
    module = types.ModuleType(name)
    if path:
        module.__path__ = [path]
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module
    parent, _, leaf = name.rpartition(".")
    if parent in sys.modules:
        setattr(sys.modules[parent], leaf, module)


def attention(q, k, v, *_, **__):
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def prepare_imports(root, wan):
    sys.path.insert(0, root)
    unused = type("Unused", (), {})
    with contextlib.suppress(ImportError):
        import einops  # noqa: F401
    if "einops" not in sys.modules:
        stand_in("einops", repeat=None, rearrange=None)
    stand_in("omegaconf", OmegaConf=unused)
    memory = {"gpu": "cuda", "get_cuda_free_memory_gb": lambda *_: 99, "DynamicSwapInstaller": unused,
              "log_gpu_memory": lambda *_, **__: None, "move_model_to_device_with_memory_preservation": None}
    if os.path.isdir(f"{root}/demo_utils"):
        stand_in("demo_utils", f"{root}/demo_utils")
        stand_in("demo_utils.memory", **memory)
    stand_in("utils", f"{root}/utils")
    stand_in("utils.memory", **memory)
    stand_in("utils.dataset", DEFAULT_SCENE_CUT_PREFIX="The scene transitions. ")
    stand_in("utils.debug_option", DEBUG=False, LOG_GPU_MEMORY=False)
    stand_in("pipeline", f"{root}/pipeline")
    stand_in(wan, f"{root}/{wan}")
    stand_in(f"{wan}.modules", f"{root}/{wan}/modules")
    stand_in(f"{wan}.utils", f"{root}/{wan}/utils")
    stand_in(f"{wan}.modules.attention", attention=attention, flash_attention=attention, sageattn_func=None,
             SAGEATTN_AVAILABLE=False, FLASH_ATTN_2_AVAILABLE=True, FLASH_ATTN_3_AVAILABLE=False)
    stand_in(f"{wan}.modules.t5", umt5_xxl=None)
    stand_in(f"{wan}.modules.tokenizers", HuggingfaceTokenizer=None)
    stand_in(f"{wan}.modules.vae", _video_vae=None)
    stand_in(f"{wan}.modules.vae2_2", _video_vae=None)
    stand_in("settings", MODEL_FOLDER="")
    stand_in("transformers.models.x_clip.modeling_x_clip", x_clip_loss=None)
    # Compiled parts would not start faster in a process that is as short as this.
    torch.compile = lambda function=None, *_, **__: function or (lambda later: later)


class TextEncoder(torch.nn.Module):
    def forward(self, text_prompts):
        embeds = torch.zeros(len(text_prompts), TEXT_LENGTH, TEXT_DIM, device="cuda", dtype=DTYPE)
        embeds[:, :40].normal_()
        return {"prompt_embeds": embeds}


class Vae(torch.nn.Module):
    model = Settings(clear_cache=lambda: None)

    def decode_to_pixel(self, *_, **__):
        return torch.zeros(1, device="cuda")

    decode_to_pixel_chunk = decode_to_pixel


class Network:
    """Sizes of a released network, and the caches that its pipeline asks for."""

    def __init__(self, heads, ffn_dim, channels, scale, window, section, size):
        width, height = map(int, size.split("x"))
        self.heads, self.ffn_dim, self.channels, self.layers = heads, ffn_dim, channels, 30
        self.height, self.width = height // scale, width // scale
        self.window, self.section = window, section
        self.frame_tokens = self.height * self.width // 4

    def make(self, model_class, **options):
        with torch.device("cuda"):
            model = model_class(model_type="t2v", text_len=TEXT_LENGTH, in_dim=self.channels, dim=self.heads * 128,
                                ffn_dim=self.ffn_dim, text_dim=TEXT_DIM, out_dim=self.channels, num_heads=self.heads,
                                num_layers=self.layers, eps=1e-6, local_attn_size=self.window, **options)
        return model.eval().to("cuda", DTYPE).requires_grad_(False)

    def wrap(self, wrapper_class, model, scheduler_class):
        """The authors' wrapper around a model that was not read from a file."""
        wrapper = wrapper_class.__new__(wrapper_class)
        torch.nn.Module.__init__(wrapper)
        wrapper.model, wrapper.uniform_timestep, wrapper.seq_len = model, False, 10**9
        wrapper.scheduler = scheduler_class(shift=5.0, sigma_min=0.0, extra_one_step=True)
        wrapper.scheduler.set_timesteps(1000, training=True)
        wrapper._compiled_model_call = None
        wrapper.post_init()
        return wrapper

    def key_value_caches(self, frames):
        def cache():
            shape = (1, frames * self.frame_tokens, self.heads, 128)
            index = [torch.tensor([0], device="cuda") for _ in range(3)]
            keys, values = (torch.zeros(shape, device="cuda", dtype=DTYPE) for _ in range(2))
            return {"k": keys, "v": values, "global_end_index": index[0], "local_end_index": index[1],
                    "quantized": False, "pinned_start": torch.tensor([-1], device="cuda"), "pinned_len": index[2]}

        return [cache() for _ in range(self.layers)]

    def text_caches(self, empty=None):
        return [{"k": empty, "v": empty, "is_init": False} for _ in range(self.layers)]

    def noise(self, frames):
        return torch.randn(1, frames, self.channels, self.height, self.width, device="cuda", dtype=DTYPE)


def use_caches(pipeline, network, model, empty_text=None):
    for block in model.blocks:
        block.self_attn.max_attention_size = network.window * network.frame_tokens

    def key_values(*_, **__):
        pipeline.kv_cache1 = network.key_value_caches(network.window)

    def text(*_, **__):
        pipeline.crossattn_cache = network.text_caches(empty_text)

    pipeline.num_transformer_blocks, pipeline.frame_seq_length = network.layers, network.frame_tokens
    pipeline._initialize_kv_cache, pipeline._initialize_crossattn_cache = key_values, text


def self_forcing(root, size):
    prepare_imports(root, "wan")
    from pipeline.causal_inference import CausalInferencePipeline
    from utils.scheduler import FlowMatchScheduler
    from utils.wan_wrapper import WanDiffusionWrapper
    from wan.modules.causal_model import CausalWanModel
    network = Network(12, 8960, 16, 8, window=21, section=3, size=size)
    model = network.make(CausalWanModel, sink_size=0)
    arguments = Settings(denoising_step_list=[1000, 750, 500, 250], warp_denoising_step=True, num_frame_per_block=3,
                         independent_first_frame=False, context_noise=0)
    pipeline = CausalInferencePipeline(arguments, "cuda", network.wrap(WanDiffusionWrapper, model, FlowMatchScheduler),
                                       TextEncoder(), Vae())
    use_caches(pipeline, network, model)
    return network, lambda frames: pipeline.inference(network.noise(frames), ["a"], return_latents=True)


def longlive(root, size):
    prepare_imports(root, "wan")
    from pipeline.interactive_causal_inference import InteractiveCausalInferencePipeline
    from utils.scheduler import FlowMatchScheduler
    from utils.wan_wrapper import WanDiffusionWrapper
    from wan.modules.causal_model import CausalWanModel
    network = Network(12, 8960, 16, 8, window=12, section=3, size=size)
    model = network.make(CausalWanModel, sink_size=3)
    arguments = Settings(denoising_step_list=[1000, 750, 500, 250], warp_denoising_step=True, num_frame_per_block=3,
                         context_noise=0, global_sink=True, model_kwargs=Settings(local_attn_size=12))
    pipeline = InteractiveCausalInferencePipeline(
        arguments, "cuda", generator=network.wrap(WanDiffusionWrapper, model, FlowMatchScheduler),
        text_encoder=TextEncoder(), vae=Vae())
    use_caches(pipeline, network, model, empty_text=torch.zeros(1, device="cuda"))
    return network, lambda frames: pipeline.inference(network.noise(frames), text_prompts_list=[["a"]],
                                                      switch_frame_indices=[], return_latents=True)


def longlive2(root, size):
    prepare_imports(root, "wan_5b")
    from pipeline.causal_diffusion_inference import CausalDiffusionInferencePipeline
    from utils.scheduler import FlowMatchScheduler
    from utils.wan_5b_wrapper import WanDiffusionWrapper
    from wan_5b.modules.causal_model import CausalWanModel
    network = Network(24, 14336, 48, 16, window=32, section=8, size=size)
    model = network.make(CausalWanModel, sink_size=8, num_frame_per_block=8)
    wrapper = network.wrap(WanDiffusionWrapper, model, FlowMatchScheduler)
    inference = {"sampling_steps": 4, "sink_size": 8, "guidance_scale": 1.0, "multi_shot_sink": True,
                 "multi_shot_rope_offset": 8.0, "independent_first_frame": False}

    def run(frames):
        shape = [1, frames, 48, network.height, network.width]
        kwargs = Options(model_name="Wan2.2-TI2V-5B", local_attn_size=32, timestep_shift=5.0)
        arguments = Options(model_kwargs=kwargs, num_frame_per_block=8, image_or_video_shape=shape, inference=inference,
                            timestep_shift=5.0, use_relative_rope=False)
        pipeline = CausalDiffusionInferencePipeline(arguments, "cuda", wrapper, TextEncoder(), Vae())
        pipeline.num_transformer_blocks = network.layers

        def key_values(**_):
            pipeline.kv_cache_pos, pipeline.kv_cache_neg = network.key_value_caches(32), network.key_value_caches(1)

        def text(**_):
            pipeline.crossattn_cache_pos, pipeline.crossattn_cache_neg = network.text_caches(), network.text_caches()

        pipeline._initialize_kv_cache, pipeline._initialize_crossattn_cache = key_values, text
        pipeline.inference(network.noise(frames), [["a"] * (frames // 8)], initial_latent=None, return_latents=True)

    return network, run


FAMILIES = {"self-forcing": self_forcing, "longlive": longlive, "longlive2": longlive2}


def seconds(run, frames):
    torch.cuda.synchronize()
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run(frames)
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("source", help="the directory of the authors' code")
    parser.add_argument("size", help="WxH")
    options = parser.parse_args()
    with torch.no_grad():
        network, run = FAMILIES[options.family](os.path.abspath(options.source), options.size)
        full = -(-(network.window + network.section) // network.section) * network.section
        longer = full + 4 * network.section
        seconds(run, full)
        short, long = (min(seconds(run, frames) for _ in range(2)) for frames in (full, longer))
    section = (long - short) / 4
    print(json.dumps({"what": "original", "family": options.family, "size": options.size,
                      "section_s": round(section, 4), "frames_per_s": round(4 * network.section / section, 1),
                      "peak_gpu_gb": round(torch.cuda.max_memory_allocated() / 1e9, 1)}), flush=True)


if __name__ == "__main__":
    main()
