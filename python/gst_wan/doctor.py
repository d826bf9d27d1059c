# SPDX-License-Identifier: LGPL-2.1-or-later
"""What `gst-wan doctor` says. All that it knows of models and GPUs it asks the engine (src/survey.h)."""
import ctypes
import importlib.metadata
import json
import os
import pathlib
import re
import subprocess

import gst_wan

NO_GSTREAMER = ("GStreamer's tools are not installed. On Debian and Ubuntu: apt install gstreamer1.0-tools "
                "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly")
LEAST_GSTREAMER = (1, 22)
# Of the first launch line in README.md. wansrc does without.
USEFUL = ("videoconvert", "x264enc", "mp4mux")


class Report:
    """Prints lines, and remembers whether one of them is a fault."""

    def __init__(self):
        self.faults = 0

    def good(self, line):
        print(f"ok       {line}")

    def remark(self, line):
        print(f"note     {line}")

    def fault(self, line):
        print(f"problem  {line}")
        self.faults += 1


def inspect(*arguments):
    """What gst-inspect-1.0 answers, or None where it is not installed."""
    try:
        return subprocess.run(["gst-inspect-1.0", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None


def size(number):
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{-(-number // 2**20)} MiB"


def check_gstreamer(report):
    answer = inspect("--version")
    found = answer and re.search(r"GStreamer (\d+)\.(\d+)\S*", answer.stdout)
    if not found:
        report.fault(NO_GSTREAMER)
    elif (int(found[1]), int(found[2])) < LEAST_GSTREAMER:
        report.fault(f"{found[0]} is too old: wansrc needs 1.22 or later.")
    else:
        report.good(found[0])
        check_elements(report)


def check_elements(report):
    answer = inspect("wansrc")
    if answer.returncode == 0:
        report.good("GStreamer finds wansrc")
    else:
        reason = " ".join(answer.stderr.split())
        report.fault(f"GStreamer does not find wansrc in {gst_wan.PLUGINS}: {reason}. If a library was missing, install it "
                     "and delete ~/.cache/gstreamer-1.0/registry.*.bin, where GStreamer remembers it.")
    missing = [name for name in USEFUL if inspect("--exists", name).returncode != 0]
    if missing:
        report.remark(f"These elements are not installed, which the examples use: {', '.join(missing)}.")


def open_engine(report):
    """The engine's survey as a function of a directory or None, or None where the engine cannot be opened."""
    try:
        survey = ctypes.CDLL(str(gst_wan.ENGINE), mode=os.RTLD_NOW).wan_survey
    except OSError as error:
        report.fault(f"The engine cannot be opened: {error}. It needs torch 2.11: pip install 'torch==2.11.*'")
        return None
    survey.restype = ctypes.c_char_p
    survey.argtypes = [ctypes.c_char_p]
    return lambda directory=None: json.loads(survey(None if directory is None else os.fsencode(directory)))


def check_engine(report):
    survey = open_engine(report)
    if survey is None:
        return None
    machine = survey()
    if "error" in machine:
        report.fault(machine["error"])
        return None
    report.good(f"gst-wan {machine['version']}, built with LibTorch {machine['libtorch']}, {installed_torch()}")
    tell_devices(report, machine)
    return survey


def installed_torch():
    try:
        return f"runs with torch {importlib.metadata.version('torch')}"
    except importlib.metadata.PackageNotFoundError:
        return "runs with a LibTorch that pip does not know"


def tell_devices(report, machine):
    for sentence in machine["remarks"]:
        report.remark(sentence + ".")
    for gpu in machine["gpus"]:
        report.good(f"{gpu['name']}: compute capability {gpu['compute_capability']}, "
                    f"{size(gpu['free'])} of {size(gpu['total'])} free")
    cuda = f"CUDA {machine['cuda']}" if machine["gpus"] else "No usable NVIDIA GPU"
    device = "the CPU" if machine["device"] == "cpu" else machine["device"]
    report.good(f"{cuda}: wansrc runs on {device}, and {size(machine['host_free'])} of host memory are free")


def is_checkpoint(directory):
    """Whether somebody would take it for one, complete or not."""
    patterns = ("model_index.json", "*.safetensors", "*.gguf", "*/diffusion_pytorch_model*.safetensors",
                "diffusion_models/*.safetensors", "diffusion_models/*.gguf", "unet/*.gguf", "HighNoise/*.gguf")
    return any(next(directory.glob(pattern), None) for pattern in patterns)


def checkpoints(directory):
    """The directory itself, or those of its directories that are checkpoints."""
    if is_checkpoint(directory) or not directory.is_dir():
        return [directory]
    return sorted(child for child in directory.iterdir() if child.is_dir() and is_checkpoint(child)) or [directory]


def describe_mode(mode, chosen):
    each = f" on each of {mode['devices']} GPUs" if mode["devices"] > 1 else ""
    parts = [size(mode["device"]) + each] + ([f"{size(mode['host'])} of host memory"] if mode["host"] else [])
    verdict = "is taken" if mode["name"] == chosen else "fits" if mode["fits"] else "does not fit"
    return f"memory={mode['name']} needs {' and '.join(parts)}, {verdict}{describe_clips(mode.get('clips', []))}"


def describe_clips(clips):
    """How long clips may be, as " (up to 81 frames of 832x480)"; those of which not one frame fits are left out."""
    lengths = [f"{clip['frames']} frames of {clip['width']}x{clip['height']}" for clip in clips if clip["frames"]]
    return f" (up to {' or '.join(lengths)})" if lengths else ""


def check_checkpoint(report, name, answer):
    described = str(name)
    if "variant" in answer:
        length = f"{answer['num_frames']} frames" if answer["num_frames"] else "endless"
        described += f": {answer['variant']}, {answer['width']}x{answer['height']}, {length}"
    modes = "; ".join(describe_mode(mode, answer.get("mode")) for mode in answer.get("modes", []))
    if "error" in answer:
        report.fault(f"{described} would not load: {answer['error']}" + (f" ({modes})" if modes else ""))
    else:
        report.good(f"{described}: {modes}")


def main(directories):
    report = Report()
    check_gstreamer(report)
    survey = check_engine(report)
    if survey:
        for model in sorted(gst_wan.MODELS.iterdir()):
            check_checkpoint(report, f"The embedded model {model.name}", survey(model))
        for directory in map(pathlib.Path, directories):
            for checkpoint in checkpoints(directory):
                check_checkpoint(report, checkpoint, survey(checkpoint))
    return 1 if report.faults else 0
