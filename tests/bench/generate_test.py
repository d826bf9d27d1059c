#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench generate on the CPU, with the embedded model: what it prints and writes. generate_test.py WAN_BENCH MODEL"""
import json
import os
import subprocess
import sys
import tempfile


def main(wan_bench, model):
    with tempfile.TemporaryDirectory() as directory:
        path = lambda name: os.path.join(directory, name)

        def generate(*options):
            command = [wan_bench, "generate", "--model", model, "--device", "cpu", "--dtype", "fp32", "--size", "64x32",
                       "--frames", "5", "--out", path("out"), "--latents", path("latents"), "--json", *options]
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            with open(path("out"), "rb") as out:
                frames = out.read()
            assert len(frames) == 5 * 32 * 64 * 3
            assert os.path.getsize(path("latents")) == report["steps"] * 16 * 2 * 4 * 8 * 4
            assert all(report[key] > 0 for key in ("text_s", "denoise_s", "decode_s", "first_frame_s")), report
            return report, frames

        report, frames = generate("--steps", "4", "--seed", "7")
        assert (report["steps"], report["forwards"], report["cached_forwards"]) == (4, 8, 0)
        assert generate("--steps", "4", "--seed", "7")[1] == frames != generate("--steps", "4", "--seed", "8")[1]
        report, cached = generate("--steps", "4", "--seed", "7", "--cache", "first-block", "--cache-threshold", "9")
        assert report["cached_forwards"] > 0 and cached != frames
        report, _ = generate("--sigmas", "1,0.75,0.5", "--scheduler", "euler", "--flow-shift", "5",
                             "--guidance-scale", "1", "--prompt", "a green star")
        assert (report["steps"], report["forwards"]) == (3, 3)


if __name__ == "__main__":
    main(*sys.argv[1:])
