#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an option costs in quality: the videos that `wan-bench generate` makes with it against those made without.

  python3 tests/bench/quality.py build/tests/bench/wan-bench --dtype fp32 --steps 16 40 \\
      --variant "--cache first-block --cache-threshold 0.1"            step caching, on the CPU
  python3 tests/bench/quality.py build/tests/bench/wan-bench --device cuda --variant "--quantization fp8"

Each --variant is a text of wan-bench's options. Every prompt is made with every seed, with --baseline's options and
with each variant's; a row is the mean over all of these clips (PSNR also the lowest of them): share of the forwards that
were cached, seconds of denoising without / with, PSNR of the 8-bit RGB values, SSIM of the luma. Needs numpy.
"""
import argparse
import json
import os
import shlex
import subprocess
import tempfile

import numpy as np

EMBEDDED_MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/wan-tiny")
PROMPTS = ["a red circle bouncing on a blue background", "a green star spinning on a pink background",
           "two yellow hearts rising on a checkerboard", "a small white square orbiting on a black background"]


def generate(options, extra, **clip):
    """The frames, uint8 [T, H, W, 3], and what wan-bench reports."""
    with tempfile.NamedTemporaryFile() as out:
        command = [options.wan_bench, "generate", "--model", options.model, "--device", options.device,
                   "--dtype", options.dtype, "--out", out.name, "--json", *shlex.split(extra)]
        for name, value in clip.items():
            command += [f"--{name}", str(value)]
        report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        width, height = map(int, report["size"].split("x"))
        return np.fromfile(out.name, np.uint8).reshape(-1, height, width, 3), report


def psnr(video, reference):
    error = np.mean((video.astype(np.float64) - reference) ** 2)
    return 10 * np.log10(255 ** 2 / error) if error else np.inf


def window_means(x, size=7):
    """Means of all windows of size x size pixels. x: [T, H, W]."""
    sums = np.pad(x, ((0, 0), (1, 0), (1, 0))).cumsum(1).cumsum(2)
    rows = sums[:, size:] - sums[:, :-size]
    return (rows[:, :, size:] - rows[:, :, :-size]) / size ** 2


def ssim(video, reference):
    """Wang et al. 2004, with uniform windows of 7x7, of BT.601 luma; the mean of all frames."""
    x, y = (frames.astype(np.float64) @ [0.299, 0.587, 0.114] for frames in (video, reference))
    mean_x, mean_y = window_means(x), window_means(y)
    var_x, var_y = window_means(x * x) - mean_x ** 2, window_means(y * y) - mean_y ** 2
    covariance = window_means(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return np.mean((2 * mean_x * mean_y + c1) * (2 * covariance + c2)
                   / ((mean_x ** 2 + mean_y ** 2 + c1) * (var_x + var_y + c2)))


def compare(options, steps):
    """Rows of figures: one list for each variant."""
    figures = [[] for _ in options.variant]
    for prompt in PROMPTS[:options.prompts]:
        for seed in options.seeds:
            clip = {"prompt": prompt, "seed": seed, "steps": steps}
            reference, whole = generate(options, options.baseline, **clip)
            for variant, rows in zip(options.variant, figures):
                video, report = generate(options, variant, **clip)
                rows.append((report["cached_forwards"] / report["forwards"], whole["denoise_s"] / report["denoise_s"],
                             psnr(video, reference), ssim(video, reference)))
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wan_bench")
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--baseline", default="", help="options of what the variants are held against")
    parser.add_argument("--variant", action="append", required=True)
    parser.add_argument("--steps", type=int, nargs="+", default=[16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="how many of the script's prompts")
    options = parser.parse_args()
    print("| steps | variant | cached | speed | PSNR, dB | lowest | SSIM |\n|---|---|---|---|---|---|---|")
    for steps in options.steps:
        for variant, rows in zip(options.variant, compare(options, steps)):
            cached, speed, quality, similarity = np.mean(rows, axis=0)
            print(f"| {steps} | `{variant}` | {cached:.0%} | {speed:.2f} | {quality:.1f} | "
                  f"{np.min(rows, axis=0)[2]:.1f} | {similarity:.3f} |", flush=True)


if __name__ == "__main__":
    main()
