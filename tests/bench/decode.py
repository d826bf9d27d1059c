#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of decoding in docs/performance.md, and its timeline: ours and Diffusers', one after the other on one GPU.

Writes OUT/decode.md, OUT/decode.json and OUT/decode-timeline.svg. Needs what peer_diffusers.py decode needs.
"""
import argparse
import json
import os
import subprocess
import sys

import plot_timeline

HERE = os.path.dirname(os.path.abspath(__file__))
COLUMNS = ("size", "decoder", "seconds", "× Diffusers sync", "× Diffusers async", "TFLOP/s", "GPU busy",
           "peak GPU memory", "first frame")


def run(command):
    """The lines of JSON that a command prints."""
    print("+", *command, file=sys.stderr, flush=True)
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def trace_path(options, mode):
    return os.path.join(options.out, f"trace-{mode}.json")


def run_ours(options, size, mode):
    command = [options.wan_bench, "decode", "--json", "--mode", mode, "--size", size, "--sink", "file", "--format",
               options.format, "--repeat", str(options.repeat), "--latent-frames", str(options.latent_frames)]
    if size == options.sizes[0]:
        command += ["--trace", trace_path(options, mode)]
    return run(command)


def run_diffusers(options, size):
    return run([sys.executable, os.path.join(HERE, "peer_diffusers.py"), "decode", "--size", size,
                "--repeat", str(options.peer_repeat), "--latent-frames", str(options.latent_frames)])


def name(result):
    return ("Diffusers " if result["what"] == "Diffusers decode" else "ours ") + result["mode"]


def row(result, results):
    peers = {name(r): r["seconds_p50"] for r in results if r["size"] == result["size"]}
    seconds = result["seconds_p50"]
    tflop = next(r["tflop"] for r in results if r["size"] == result["size"] and "tflop" in r)
    busy = result["gpu_busy"]
    return (result["size"], name(result), f"{seconds:.2f}", f"{peers['Diffusers sync'] / seconds:.2f}",
            f"{peers['Diffusers async'] / seconds:.2f}", f"{tflop / seconds:.0f}",
            "not traced" if busy is None else f"{100 * busy:.1f} %", f"{result['peak_allocated_gb']:.1f} GB",
            f"{1000 * result['first_frame_s']:.0f} ms")


def markdown(columns, rows):
    """A table; columns and rows are tuples of texts."""
    return "".join("| " + " | ".join(line) + " |\n" for line in [columns, ("---",) * len(columns), *rows])


def table(results):
    return markdown(COLUMNS, [row(result, results) for result in results])


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--wan-bench", default="build/tests/bench/wan-bench")
    parser.add_argument("--sizes", nargs="+", default=["1280x720", "832x480"], help="the first one's timeline is drawn")
    parser.add_argument("--latent-frames", type=int, default=41)
    parser.add_argument("--repeat", type=int, default=10, help="measured videos of ours")
    parser.add_argument("--peer-repeat", type=int, default=3, help="measured videos of Diffusers'")
    parser.add_argument("--format", default="rgb", help="of our frames; Diffusers' are RGB")
    parser.add_argument("--out", default=".", help="an existing directory")
    return parser.parse_args()


def main():
    options = parse()
    results = []
    for size in options.sizes:
        for mode in ("sync", "async"):
            results += run_ours(options, size, mode)
        results += run_diffusers(options, size)
    with open(os.path.join(options.out, "decode.json"), "w") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(options.out, "decode.md"), "w") as file:
        file.write(table(results))
    print(table(results))
    traces = [trace_path(options, mode) for mode in ("sync", "async")]
    if all(map(os.path.exists, traces)):  # there is none without CUPTI
        plot_timeline.main(*traces, os.path.join(options.out, "decode-timeline.svg"))


if __name__ == "__main__":
    main()
