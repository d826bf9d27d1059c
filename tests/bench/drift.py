#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""How the colours of a film drift whose clips continue each other, and what continuity-correction leaves of that.

  drift.py WAN_BENCH --model DIR [--clips 20] [options of wan-bench generate]

Prints a table: of each correction how far the mean and the deviation of the channels are from the first clip's, the
largest of the three, in levels of 0 to 255.
"""
import argparse
import json
import subprocess

from decode import markdown


def film(options, rest, correction):
    """Of each clip its colours: {"mean": [...], "deviation": [...]}."""
    command = [options.wan_bench, "generate", "--film", "--json", "--model", options.model, "--clips", str(options.clips),
               "--continuity-correction", str(correction), *rest]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["colours"]


def distance(clip, first, what):
    return max(abs(a - b) for a, b in zip(clip[what], first[what]))


def row(correction, clips, shown):
    cells = [f"{distance(clips[i - 1], clips[0], 'mean'):.1f}, {distance(clips[i - 1], clips[0], 'deviation'):.1f}"
             for i in shown]
    return (str(correction), *cells)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wan_bench")
    parser.add_argument("--model", required=True)
    parser.add_argument("--clips", type=int, default=20)
    parser.add_argument("--corrections", type=float, nargs="+", default=[0, 0.5, 1])
    options, rest = parser.parse_known_args()
    shown = [i for i in (2, 3, 5, 10, 20, 50) if i <= options.clips]
    rows = [row(correction, film(options, rest, correction), shown) for correction in options.corrections]
    print(markdown(("correction", *(f"clip {i}" for i in shown)), rows), end="")


if __name__ == "__main__":
    main()
