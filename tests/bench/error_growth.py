#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the error of bfloat16 grows from step to step of the embedded model: ours, and beside it Diffusers' own.

  python3 tests/bench/error_growth.py build/tests/bench/wan-bench [--device cuda] [--variant "--quantization fp8"]

The latents after each step, in bfloat16 (or with each --variant's options of wan-bench besides) against the same
program's in float32, on the same device from the same noise: ||x - ref|| / ||ref||, the mean over the seeds. Diffusers is
left out where it is not installed (0.40.0, transformers 5.17.0, torch 2.11.0). On CUDA, TF32 is switched off in both.
"""
import argparse
import os
import shlex
import subprocess
import tempfile

import numpy as np

EMBEDDED_MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/wan-tiny")
PROMPT, WIDTH, HEIGHT, FRAMES, GUIDANCE = "a red circle bouncing on a blue background", 160, 96, 33, 2.5


def ours(options, dtype, seed, extra=""):
    """The latents after each step, [steps, values]."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([options.wan_bench, "generate", "--model", EMBEDDED_MODEL, "--device", options.device, "--dtype",
                        dtype, "--prompt", PROMPT, "--seed", str(seed), "--size", f"{WIDTH}x{HEIGHT}", "--frames",
                        str(FRAMES), "--steps", str(options.steps), "--guidance-scale", str(GUIDANCE), "--latents",
                        out.name, *shlex.split(extra)],
                       check=True, stdout=subprocess.DEVNULL, env={**os.environ, "NVIDIA_TF32_OVERRIDE": "0"})
        return np.fromfile(out.name, np.float32).reshape(options.steps, -1)


def diffusers(options, dtype, seed):
    """The same of Diffusers' pipeline."""
    import torch
    from diffusers import WanPipeline
    torch.backends.cudnn.allow_tf32 = False
    torch_dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    pipe = WanPipeline.from_pretrained(EMBEDDED_MODEL, torch_dtype=torch_dtype).to(options.device)
    pipe.set_progress_bar_config(disable=True)
    steps = []

    def keep(pipe, step, timestep, tensors):
        steps.append(tensors["latents"].float().cpu().numpy().ravel())
        return {}

    pipe(PROMPT, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=options.steps,
         guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(seed), output_type="latent",
         callback_on_step_end=keep, max_sequence_length=512)
    return np.stack(steps)


def growth(latents, reference):
    return np.linalg.norm(latents - reference, axis=1) / np.linalg.norm(reference, axis=1)


def curves(options, seed):
    """The error after each step, by name."""
    reference = ours(options, "fp32", seed)
    result = {"ours": growth(ours(options, "bf16", seed), reference)}
    for variant in options.variant:
        result[f"ours {variant}"] = growth(ours(options, "bf16", seed, variant), reference)
    if options.diffusers:
        reference = diffusers(options, "fp32", seed)
        result["Diffusers"] = growth(diffusers(options, "bf16", seed), reference)
    return result


def has_diffusers():
    try:
        import diffusers  # noqa: F401
        return True
    except ImportError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wan_bench")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--variant", action="append", default=[], help="options of wan-bench, for one more curve")
    parser.add_argument("--no-diffusers", dest="diffusers", action="store_false")
    options = parser.parse_args()
    options.diffusers = options.diffusers and has_diffusers()
    runs = [curves(options, seed) for seed in options.seeds]
    names = list(runs[0])
    print(f"| step | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    means = {name: np.mean([run[name] for run in runs], axis=0) for name in names}
    for step in range(options.steps):
        print(f"| {step + 1} | {' | '.join(f'{means[name][step]:.2e}' for name in names)} |")


if __name__ == "__main__":
    main()
