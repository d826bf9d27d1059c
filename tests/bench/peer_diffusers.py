#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Diffusers' figures beside wan-bench's: run both in one go on one machine.

  transformer  one forward of a released denoiser (bfloat16), random weights
  tiny         the embedded model, 160x96, 33 frames, 16 steps, float32 on the CPU
  decode       the z16 decoder chunk by chunk to a file, random weights: on CUDA (bfloat16) sequential and asynchronous,
               on the CPU (float32) sequential
  decode48     TI2V-5B's decoder, all latent frames in one call of vae.decode(), random weights (bfloat16)
  quality      how far bfloat16 decodes, Diffusers' and ours, are from Diffusers' float32, random and embedded weights

`peer_diffusers.py PART --help` lists the options. Needs torch 2.11.0 and diffusers 0.40.0 (tiny also transformers
5.17.0). Each result is a line of JSON.
"""
import argparse
import json
import math
import os
import queue
import statistics
import subprocess
import tempfile
import threading
import time

import torch

EMBEDDED_MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/wan-tiny")


def report(**values):
    print(json.dumps(values), flush=True)


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(what, function, repeats):
    """Prints the seconds of every run, the first included."""
    seconds, out = [], None
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        out = function()
        synchronize()
        seconds.append(round(time.perf_counter() - start, 3))
    report(what=what, s=seconds)
    return out


# What is not the class's default, of wan-bench's --random and of the VAE of TI2V-5B.
TI2V_VAE = {"base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "patch_size": 2,
            "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16, "latents_mean": [0.0] * 48,
            "latents_std": [1.0] * 48}
TRANSFORMERS = {
    "T2V-A14B": {},
    "I2V-A14B": {"in_channels": 36},
    "TI2V-5B": {"in_channels": 48, "out_channels": 48, "num_attention_heads": 24, "ffn_dim": 14336, "num_layers": 30},
    "Wan2.1-T2V-1.3B": {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "Wan2.1-T2V-14B": {},
    "Wan2.1-I2V-14B": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120},
    "Wan2.1-FLF2V-14B": {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120, "pos_embed_seq_len": 514},
}


def transformer_inputs(options, config):
    """Latents, timestep, text and what CLIP makes of pictures, as the pipelines give them."""
    width, height = map(int, options.size.split("x"))
    frames, scale = (options.frames - 1) // 4 + 1, 16 if config.in_channels == 48 else 8
    latents = torch.randn(1, config.in_channels, frames, height // scale, width // scale)
    timestep = torch.tensor([900])
    if config.in_channels == 48:  # one for each token, those of the picture's frame 0
        tokens = height // scale // 2 * (width // scale // 2)
        timestep = torch.cat([torch.zeros(1, tokens), torch.full((1, (frames - 1) * tokens), 900)], 1).long()
    pictures = 0 if config.image_dim is None else 2 if config.pos_embed_seq_len else 1
    image = torch.randn(pictures, 257, config.image_dim) if pictures else None
    return latents, timestep, torch.randn(1, 512, 4096), image


def transformer(options):
    from diffusers import WanTransformer3DModel
    config = dict(TRANSFORMERS[options.random])
    if options.layers:
        config["num_layers"] = options.layers
    with torch.device(options.device):
        torch.set_default_dtype(torch.bfloat16)
        model = WanTransformer3DModel(**config).to(torch.bfloat16).eval()
        latents, timestep, text, image = transformer_inputs(options, model.config)
        torch.set_default_dtype(torch.float32)
    seconds = []
    for _ in range(options.repeat + 1):
        synchronize()
        start = time.perf_counter()
        model(latents, timestep, text, image, return_dict=False)
        synchronize()
        seconds.append(round(time.perf_counter() - start, 4))
    report(what="Diffusers transformer", model=options.random, size=options.size, frames=options.frames,
           layers=model.config.num_layers, dtype="bf16", first_s=seconds[0], seconds=seconds[1:],
           seconds_p50=statistics.median(seconds[1:]), peak_gpu_gb=torch.cuda.max_memory_allocated() / 1e9)


def tiny(_):
    from diffusers import WanPipeline
    pipe = WanPipeline.from_pretrained(EMBEDDED_MODEL, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generate = lambda: pipe("a red circle bouncing on a blue background", height=96, width=160, num_frames=33,
                            num_inference_steps=16, guidance_scale=2.5, output_type="latent").frames
    latents = timed("Diffusers text and denoise", generate, 2)
    timed("Diffusers decode", lambda: pipe.vae.decode(latents, return_dict=False), 2)


# decode

def decoded_chunks(vae, latents):
    """The frames of one latent frame after the other: Diffusers' own decode, before it joins them."""
    vae.clear_cache()
    hidden = vae.post_quant_conv(latents)
    for i in range(latents.shape[2]):
        vae._conv_idx = [0]
        yield vae.decoder(hidden[:, :, i:i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
    vae.clear_cache()


def to_rgb(frames):
    """[1, 3, T, H, W] in [-1, 1] to uint8 [T, H, W, 3], on the GPU."""
    return ((frames[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous()


class FrameFile:
    """Takes the frames and remembers when the first one came."""

    def __init__(self):
        self.file = tempfile.TemporaryFile(buffering=0)
        self.first_frame = None

    def begin(self):
        self.file.seek(0)
        self.file.truncate()
        self.first_frame = None
        self.start = time.perf_counter()

    def take(self, frames):
        self.first_frame = self.first_frame or time.perf_counter() - self.start
        self.file.write(frames.numpy().data)


def decode_sequentially(vae, latents, sink):
    """Every chunk is copied to the host and written before the next one is launched."""
    for chunk in decoded_chunks(vae, latents):
        sink.take(to_rgb(chunk).cpu())


class Writer(threading.Thread):
    """Writes pinned buffers when their copies are done, and gives them back."""

    def __init__(self, sink, free):
        super().__init__()
        self.sink, self.free, self.copies = sink, free, queue.Queue()
        self.start()

    def run(self):
        while (copy := self.copies.get()) is not None:
            buffer, count, copied = copy
            copied.synchronize()
            self.sink.take(buffer[:count])
            self.free.put(buffer)

    def finish(self):
        self.copies.put(None)
        self.join()


def decode_asynchronously(vae, latents, sink):
    """The published pattern: a copy stream, two pinned buffers, events and a writer thread."""
    copy_stream, free = torch.cuda.Stream(), queue.Queue()
    height, width = 8 * latents.shape[3], 8 * latents.shape[4]
    for _ in range(2):
        free.put(torch.empty(4, height, width, 3, dtype=torch.uint8, pin_memory=True))
    writer = Writer(sink, free)
    for chunk in decoded_chunks(vae, latents):
        pixels = to_rgb(chunk)
        decoded = torch.cuda.current_stream().record_event()
        buffer, count = free.get(), pixels.shape[0]
        with torch.cuda.stream(copy_stream):
            copy_stream.wait_event(decoded)
            buffer[:count].copy_(pixels, non_blocking=True)
            pixels.record_stream(copy_stream)
            writer.copies.put((buffer, count, copy_stream.record_event()))
    writer.finish()


def busy_share(function):
    """The share of the time from the first kernel to the last in which some kernel runs; copies do not count."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        function()
        torch.cuda.synchronize()
    kernels = sorted((event.start_ns(), event.start_ns() + event.duration_ns())
                     for event in profiler.profiler.kineto_results.events()
                     if str(event.device_type()).endswith("CUDA") and not event.name().startswith(("Memcpy", "Memset")))
    covered, end = 0, kernels[0][0]
    for start, stop in kernels:
        covered += max(stop - max(start, end), 0)
        end = max(end, stop)
    return covered / (end - kernels[0][0])


def time_decodes(run, vae, latents, sink, repeat):
    """Seconds of each video and of its first frame, after one to warm up."""
    seconds, first_frames = [], []
    for count in range(1 + repeat):
        synchronize()
        sink.begin()
        run(vae, latents, sink)
        synchronize()
        if count > 0:
            seconds.append(time.perf_counter() - sink.start)
            first_frames.append(sink.first_frame)
    return {"seconds": seconds, "seconds_p50": statistics.median(seconds),
            "first_frame_s": statistics.mean(first_frames)}


def gpu_figures(run):
    """Of the runs so far, the memory; of this one, how busy the GPU is."""
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return {"gpu": torch.cuda.get_device_name(), "gpu_busy": busy_share(run), "peak_allocated_gb": peak / 1e9,
            "peak_reserved_gb": reserved / 1e9}


def decode(options):
    from diffusers import AutoencoderKLWan
    on_gpu = options.device == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    width, height = map(int, options.size.split("x"))
    torch.manual_seed(0)
    with torch.device(options.device):
        vae = AutoencoderKLWan(base_dim=options.base_dim).to(dtype).eval().requires_grad_(False)
        vae.encoder = None  # its memory is not the decoder's
        latents = torch.randn(1, 16, options.latent_frames, height // 8, width // 8, dtype=dtype)
    sink = FrameFile()
    modes = {"sync": decode_sequentially, "async": decode_asynchronously} if on_gpu else {"sync": decode_sequentially}
    for mode, run in modes.items():
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        figures = time_decodes(run, vae, latents, sink, options.repeat)
        sink.begin()
        if on_gpu:
            figures.update(gpu_figures(lambda: run(vae, latents[:, :, :8], sink)))
        report(what="Diffusers decode", device=options.device, mode=mode, size=options.size, base_dim=options.base_dim,
               dtype=str(dtype), latent_frames=options.latent_frames, **figures)


# quality

def psnr(frames, reference):
    """Of values in [-1, 1]."""
    error = (frames.double() - reference.double()).square().mean().item()
    return 10 * math.log10(4 / error) if error > 0 else math.inf


def diffusers_frames(directory, latents, device, dtype):
    """[frames, 3, height, width]"""
    from diffusers import AutoencoderKLWan
    vae = AutoencoderKLWan.from_pretrained(directory, torch_dtype=dtype, low_cpu_mem_usage=False).to(device).eval()
    return vae.decode(latents.to(device, dtype), return_dict=False)[0][0].transpose(0, 1).float().cpu()


def our_frames(options, directory, latents_file, dtype, shape):
    with tempfile.NamedTemporaryFile() as dump:
        subprocess.run([options.wan_bench, "decode", "--vae", directory, "--latents", latents_file, "--dump", dump.name,
                        "--dtype", dtype, "--device", options.device, "--repeat", "1", "--warmup", "0"],
                       check=True, stdout=subprocess.DEVNULL)
        return torch.from_file(dump.name, size=math.prod(shape), dtype=torch.float32).clone().view(shape)


def compare(what, directory, latents, options):
    from safetensors.torch import save_file
    reference = diffusers_frames(directory, latents, options.device, torch.float32)
    theirs = psnr(diffusers_frames(directory, latents, options.device, torch.bfloat16), reference)
    with tempfile.TemporaryDirectory() as temporary:
        file = os.path.join(temporary, "latents.safetensors")
        save_file({"latents": latents}, file)
        ours = {dtype: psnr(our_frames(options, directory, file, dtype, reference.shape), reference)
                for dtype in ("bf16", "fp32")}
    report(what="PSNR against Diffusers float32, dB", weights=what, diffusers_bf16=theirs, ours_bf16=ours["bf16"],
           ours_minus_diffusers=ours["bf16"] - theirs, ours_fp32=ours["fp32"])


def quality(options):
    from diffusers import AutoencoderKLWan
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    width, height = map(int, options.size.split("x"))
    torch.manual_seed(0)
    latents = torch.randn(1, 16, options.latent_frames, height // 8, width // 8)
    with tempfile.TemporaryDirectory() as directory:
        AutoencoderKLWan(base_dim=options.base_dim).save_pretrained(directory)
        compare("random", directory, latents, options)
    compare("embedded", os.path.join(EMBEDDED_MODEL, "vae"), latents, options)


def decode48(options):
    from diffusers import AutoencoderKLWan
    width, height = map(int, options.size.split("x"))
    torch.manual_seed(0)
    with torch.device(options.device):
        vae = AutoencoderKLWan(**TI2V_VAE).to(torch.bfloat16).eval()
        vae.encoder = None  # its memory is not the decoder's
        latents = torch.randn(1, 48, options.latent_frames, height // 16, width // 16, dtype=torch.bfloat16)
    timed("Diffusers decode48", lambda: vae.decode(latents), 1 + options.repeat)
    if options.device == "cuda":
        report(peak_allocated_gb=torch.cuda.max_memory_allocated() / 1e9)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True, metavar="PART")
    parts.add_parser("tiny").set_defaults(run=tiny)
    part = parts.add_parser("transformer", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    part.set_defaults(run=transformer)
    part.add_argument("--random", choices=TRANSFORMERS, default="T2V-A14B")
    part.add_argument("--device", default="cuda", help="cuda or cpu")
    part.add_argument("--size", default="832x480")
    part.add_argument("--frames", type=int, default=81)
    part.add_argument("--layers", type=int, help="instead of the model's")
    part.add_argument("--repeat", type=int, default=3, help="measured forwards, after one to warm up")
    part = parts.add_parser("decode48", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    part.set_defaults(run=decode48)
    part.add_argument("--size", default="1280x704")
    part.add_argument("--latent-frames", type=int, default=11)
    part.add_argument("--device", default="cuda", help="cuda or cpu")
    part.add_argument("--repeat", type=int, default=2, help="measured videos, after one to warm up")
    for name, function, latent_frames in (("decode", decode, 41), ("quality", quality, 5)):
        part = parts.add_parser(name, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        part.set_defaults(run=function)
        part.add_argument("--size", default="1280x720")
        part.add_argument("--latent-frames", type=int, default=latent_frames)
        part.add_argument("--device", default="cuda", help="cuda or cpu")
        part.add_argument("--base-dim", type=int, default=96, help="width of the random weights")
        if function is decode:
            part.add_argument("--repeat", type=int, default=3, help="measured videos, after one to warm up")
        else:
            part.add_argument("--wan-bench", default="build/tests/bench/wan-bench")
    return parser.parse_args()


if __name__ == "__main__":
    with torch.no_grad():
        options = parse()
        options.run(options)
