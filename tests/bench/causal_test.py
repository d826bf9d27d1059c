#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench causal on the CPU, with one small block of each kind of memory: what it prints. causal_test.py WAN_BENCH"""
import json
import subprocess
import sys


def causal(wan_bench, *options):
    command = [wan_bench, "causal", "--device", "cpu", "--dtype", "fp32", "--size", "32x32", "--sections", "2", "--json", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(wan_bench):
    for family in ("self-forcing", "rolling-forcing", "krea"):
        report = causal(wan_bench, "--family", family, "--layers", "1")
        assert report["family"] == family, report
        assert all(report[key] > 0 for key in ("section_s", "step_s", "frames_per_s")), report
    for options in ((), ("--tiny-decoder",)):
        report = causal(wan_bench, "--family", "tiny", "--decode", *options)
        assert all(report[key] > 0 for key in ("decode_s", "frames_per_s_between", "frames_per_s_beside")), report


if __name__ == "__main__":
    main(sys.argv[1])
