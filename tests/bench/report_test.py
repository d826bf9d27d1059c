#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench report: a whole machine is described, and a part that fails says why. report_test.py WAN_BENCH"""
import json
import os
import subprocess
import sys


def report(wan_bench, *options, **environment):
    return subprocess.run([wan_bench, "report", *options], check=True, stdout=subprocess.PIPE, text=True,
                          env=dict(os.environ, **environment)).stdout


def main(wan_bench):
    result = json.loads(report(wan_bench, "--json"))
    assert all(result[key] for key in ("gst-wan", "libtorch", "processor", "device", "kernels")), result
    clip = result["embedded model"]
    assert clip["frames"] == 17 and clip["steps"] == 8 and clip["denoise_s"] > 0, result
    if result["device"] != "cpu":
        assert clip["psnr_db"] == "equal" or clip["psnr_db"] > 30, result
        assert all(result[key]["seconds_p50"] > 0 for key in ("decode", "transformer bf16")), result
    text = report(wan_bench, "--model", "/nowhere")
    assert "embedded model" in text and "failed: wan-bench: " in text and "/nowhere" in text, text


if __name__ == "__main__":
    main(sys.argv[1])
