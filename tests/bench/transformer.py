#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of a forward in docs/performance.md: ours and Diffusers', one after the other on one GPU.

Writes OUT/transformer.md and OUT/transformer.json. Needs what peer_diffusers.py transformer needs.
"""
import argparse
import json
import os
import sys

from decode import HERE, markdown, run

COLUMNS = ("model", "size", "denoiser", "seconds", "× Diffusers", "TFLOP/s", "GPU busy", "peak GPU memory")


def shape(options, model, size):
    """Options that wan-bench and peer_diffusers.py share."""
    layers = ["--layers", str(options.layers)] if options.layers else []
    return ["--random", model, "--size", size, "--frames", str(options.frames), "--repeat", str(options.repeat), *layers]


def run_ours(options, model, size, dtype):
    return run([options.wan_bench, "transformer", "--json", "--ops", "--dtype", dtype, *shape(options, model, size)])


def run_diffusers(options, model, size):
    return run([sys.executable, os.path.join(HERE, "peer_diffusers.py"), "transformer", *shape(options, model, size)])


def row(result, results):
    of_size = [r for r in results if (r["model"], r["size"]) == (result["model"], result["size"])]
    peer = next((r["seconds_p50"] for r in of_size if r["what"] == "Diffusers transformer"), None)
    tflop = next(r["tflop"] for r in of_size if "tflop" in r)
    seconds = result["seconds_p50"]
    name = ("Diffusers " if result["what"] == "Diffusers transformer" else "ours ") + result["dtype"]
    return (result["model"], result["size"], name, f"{seconds:.3f}", f"{peer / seconds:.2f}" if peer else "not run",
            f"{tflop / seconds:.0f}", f"{100 * result['busy']:.1f} %" if "busy" in result else "not traced",
            f"{result['peak_gpu_gb']:.1f} GB")


def operations(results):
    """A table of milliseconds: an operation a row, a run a column."""
    runs = [{"of": f"{r['model']} {r['dtype']} {r['size']}", **{o["name"]: o["ms"] for o in r["operations"]}}
            for r in results if "operations" in r]
    names = list(dict.fromkeys(name for run in runs for name in run if name != "of"))
    return markdown(("ms", *(run["of"] for run in runs)),
                    [(name, *(f"{run.get(name, 0):.1f}" for run in runs)) for name in names])


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--wan-bench", default="build/tests/bench/wan-bench")
    parser.add_argument("--models", nargs="+", default=["T2V-A14B"])
    parser.add_argument("--sizes", nargs="+", default=["832x480", "1280x720"])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp8"])
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--layers", type=int, help="instead of the model's")
    parser.add_argument("--repeat", type=int, default=3, help="measured forwards of each")
    parser.add_argument("--no-diffusers", action="store_true")
    parser.add_argument("--out", default=".", help="an existing directory")
    return parser.parse_args()


def main():
    options = parse()
    results = []
    for model in options.models:
        for size in options.sizes:
            for dtype in options.dtypes:
                results += run_ours(options, model, size, dtype)
            if not options.no_diffusers:
                results += run_diffusers(options, model, size)
    text = markdown(COLUMNS, [row(r, results) for r in results]) + "\n" + operations(results)
    with open(os.path.join(options.out, "transformer.json"), "w") as file:
        json.dump(results, file, indent=1)
    with open(os.path.join(options.out, "transformer.md"), "w") as file:
        file.write(text)
    print(text)


if __name__ == "__main__":
    main()
