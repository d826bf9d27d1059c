#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench encode on the CPU, with tiny encoders of both kinds: what it prints. encode_test.py WAN_BENCH"""
import json
import subprocess
import sys


def encode(wan_bench, *options):
    command = [wan_bench, "encode", "--device", "cpu", "--dtype", "fp32", "--base-dim", "8", "--size", "64x32", "--frames", "9",
               "--repeat", "2", "--warmup", "0", "--json", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(wan_bench):
    for options in ((), ("--tiled",), ("--z48",), ("--grey",)):
        result = encode(wan_bench, *options)
        assert len(result["seconds"]) == 2 and result["frames"] == 9, result
        assert all(result[key] > 0 for key in ("seconds_min", "tflop", "tflop_per_s", "share_of_matmul")), result
    result = encode(wan_bench, "--grey", "--dtype", "bf16", "--against", "fp32")
    assert 0 < result["relative_error"] < 0.05, result


if __name__ == "__main__":
    main(sys.argv[1])
