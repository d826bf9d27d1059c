#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The table of docs/scaling.md: one video on one device and on several, with wan-bench generate.

First the exactness, with few blocks: the latents of each choice of devices are held against those of the first one, in
float32 (or, in another dtype, against the first one's in float32). Then the seconds of a step and of a whole clip.
With --causal, a section of an endless video instead: all devices denoise and the first one decodes, or the last one only decodes.
--sizes, --dtypes and --guidance choose some of the cases, of which all take long. Builds nothing. Writes OUT/scaling.md and OUT/scaling.json, and fails where latents differ by more than they may.

    scaling.py --devices cuda:0 cuda:0,1 cuda:0,1,2,3
    scaling.py --devices cuda:0 cuda:0,1 cuda:0,1,2,3 --causal krea --sizes 832x480 --dtypes bf16
    scaling.py --devices cpu cpu,cpu --model models/wan-tiny --dtypes fp32 --sizes 96x64 --frames 9
"""
import argparse
import array
import itertools
import json
import math
import os
import sys
import tempfile

from decode import markdown, run

CAUSAL_COLUMNS = ("model", "size", "dtype", "denoising", "decoding", "a section, s", "× one", "frames a second")
COLUMNS = ("model", "size", "dtype", "guidance", "devices", "seconds a step", "× one", "of linear", "clip, s", "× one")
# Of float32: what sums in another order come to. In bfloat16 and FP8, how much further from float32 than one device.
FLOAT32_TOLERANCE, ROUNDING_FACTOR = 1e-4, 1.1


def generate(options, case, devices, *more):
    weights = ["--model", options.model] if options.model else ["--random", options.random, "--tokenizer", options.tokenizer]
    dtype = {"fp8": ["--dtype", "bf16", "--quantization", "fp8"]}.get(case["dtype"], ["--dtype", case["dtype"]])
    return run([options.wan_bench, "generate", "--json", *weights, "--device", devices, *dtype, "--size", case["size"],
                "--frames", str(options.frames), "--guidance-scale", str(case["guidance"]), *map(str, more)])[0]


def latents(options, case, devices, directory):
    """After the last of two steps."""
    path = os.path.join(directory, "latents")
    layers = [] if options.model else ["--layers", options.exact_layers]
    generate(options, case, devices, "--steps", 2, "--latents", path, *layers)
    values = array.array("f")
    with open(path, "rb") as file:
        values.frombytes(file.read())
    return values[len(values) // 2:]


def distance(values, expected):
    """Relative, in the Euclidean norm."""
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(values, expected)) / sum(b ** 2 for b in expected))


def check(options, case, directory):
    """The distance of each choice of devices. Stops where one is too far."""
    one = latents(options, {**case, "dtype": "fp32"}, options.devices[0], directory)
    distances = {devices: distance(latents(options, case, devices, directory), one) for devices in options.devices}
    allowed = FLOAT32_TOLERANCE if case["dtype"] == "fp32" else ROUNDING_FACTOR * distances[options.devices[0]]
    for devices, value in distances.items():
        print(f"{case}: {devices} is {value:.2e} from one device in float32, {allowed:.2e} is allowed", file=sys.stderr)
        if value > allowed:
            sys.exit(f"{devices} does not make the video that {options.devices[0]} makes")
    return distances


def layers_of(options):
    return ["--layers", str(options.layers)] if options.layers else []


def measure(options, case, devices):
    """The last clip: the first one waits for what is made once."""
    return generate(options, case, devices, "--steps", options.steps, "--clips", options.clips, *layers_of(options))


def row(options, case, devices, report, one):
    """One device's report is `one`."""
    step, clip, ratio = report["denoise_s"] / report["steps"], report["total_s"], one["denoise_s"] / report["denoise_s"]
    return (options.model or options.random, case["size"], case["dtype"], str(case["guidance"]), devices, f"{step:.3f}", f"{ratio:.2f}",
            f"{100 * ratio / len(names(devices)):.0f} %", f"{clip:.1f}", f"{one['total_s'] / clip:.2f}")


def names(devices):
    """Each device, as the property decoder-device has it: of cuda:0,1 these are cuda:0 and cuda:1."""
    kind = devices.partition(":")[0]
    return [f"{kind}:{name}" if name.isdigit() else name for name in devices.split(",")]


def placements(devices):
    """(those that denoise, the one that decodes), as the properties have them."""
    each = names(devices)
    yield devices, each[0]
    if len(each) > 1:
        yield devices.rpartition(",")[0], each[-1]


def causal_rows(options, size, dtype, results):
    one = None
    for devices in options.devices:
        for denoising, decoding in placements(devices):
            report = run([options.wan_bench, "causal", "--json", "--decode", "--family", options.causal, "--size", size, "--dtype", dtype,
                          "--device", denoising, "--decoder-device", decoding, *layers_of(options)])[0]
            section, fps = report["section_s"], max(report["frames_per_s_between"], report["frames_per_s_beside"])
            one = one or section
            results.append({"denoising": denoising, "decoding": decoding, **report})
            yield options.causal, size, dtype, denoising, decoding, f"{section:.3f}", f"{one / section:.2f}", f"{fps:.1f}"


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wan-bench", default="build/tests/bench/wan-bench")
    parser.add_argument("--devices", nargs="+", default=["cuda:0", "cuda:0,1"], help="the first is one device")
    parser.add_argument("--random", default="T2V-A14B", help="a model of wan-bench generate, with random weights")
    parser.add_argument("--model", help="a checkpoint instead")
    parser.add_argument("--tokenizer", default="models/wan-tiny/tokenizer", help="of random weights")
    parser.add_argument("--sizes", nargs="+", default=["832x480", "1280x720"])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp8"], help="fp32, bf16 or fp8")
    parser.add_argument("--guidance", nargs="+", type=float, default=[1, 4], help="1: none")
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--clips", type=int, default=2, help="of which the last is measured")
    parser.add_argument("--causal", metavar="FAMILY", help="sections of an endless video instead, as wan-bench causal makes them")
    parser.add_argument("--layers", type=int, help="of random weights, instead of the model's")
    parser.add_argument("--exact-layers", type=int, default=4, help="the same where the exactness is checked")
    parser.add_argument("--no-check", action="store_true")
    parser.add_argument("--out", default=".", help="an existing directory")
    return parser.parse_args()


def write(options, columns, lines, results):
    """After each measurement: what comes later may fail, or run out of time."""
    for name, text in (("scaling.md", markdown(columns, lines)), ("scaling.json", json.dumps(results, indent=1))):
        with open(os.path.join(options.out, name), "w", encoding="utf-8") as file:
            file.write(text)


def clips(options):
    lines, results = [], []
    for size, dtype, guidance in itertools.product(options.sizes, options.dtypes, options.guidance):
        case = {"size": size, "dtype": dtype, "guidance": guidance}
        distances = {}
        if not options.no_check:
            with tempfile.TemporaryDirectory() as directory:
                distances = check(options, case, directory)
        reports = []
        results.append({**case, "distances": distances, "reports": reports})
        for devices in options.devices:
            reports.append(measure(options, case, devices))
            lines.append(row(options, case, devices, reports[-1], reports[0]))
            write(options, COLUMNS, lines, results)
    return markdown(COLUMNS, lines)


def sections(options):
    lines, results = [], []
    for size, dtype in itertools.product(options.sizes, options.dtypes):
        for row in causal_rows(options, size, dtype, results):
            lines.append(row)
            write(options, CAUSAL_COLUMNS, lines, results)
    return markdown(CAUSAL_COLUMNS, lines)


def main():
    options = parse()
    print(sections(options) if options.causal else clips(options))


if __name__ == "__main__":
    main()
