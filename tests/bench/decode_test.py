#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench decode on the CPU, with a tiny decoder: what it prints and writes. decode_test.py WAN_BENCH"""
import json
import os
import subprocess
import sys
import tempfile

import plot_timeline

FIGURES = ("seconds_min", "seconds_mean", "seconds_p50", "seconds_p99", "first_frame_s", "first_frame_max_s",
           "frames_per_s", "realtime_at_24_fps", "tflop", "tflop_per_s", "matmul_tflop_per_s", "share_of_matmul")


def decode(wan_bench, *options):
    command = [wan_bench, "decode", "--device", "cpu", "--dtype", "fp32", "--base-dim", "8", "--size", "64x32",
               "--latent-frames", "3", "--repeat", "2", "--warmup", "0", "--checksum", "--json", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main(wan_bench):
    with tempfile.TemporaryDirectory() as directory:
        path = lambda name: os.path.join(directory, name)
        sequential = decode(wan_bench, "--mode", "sync", "--sink", "file", "--trace", path("sync.json"))
        asynchronous = decode(wan_bench, "--mode", "async", "--sink", "host", "--trace", path("async.json"),
                              "--dump", path("dump"))
        one_tile = decode(wan_bench, "--tiled")
        assert os.path.getsize(path("dump")) == 9 * 3 * 32 * 64 * 4
        plot_timeline.main(path("sync.json"), path("async.json"), path("timeline.svg"))
    for result in (sequential, asynchronous):
        assert result["frames"] == 9 and len(result["seconds"]) == 2
        assert all(result[key] > 0 for key in FIGURES), result
    assert sequential["checksum"] == asynchronous["checksum"] == one_tile["checksum"]


if __name__ == "__main__":
    main(sys.argv[1])
