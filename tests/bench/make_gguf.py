#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Quantizes the embedded model's experts as ComfyUI-GGUF does, so that quality.py can tell what a type costs:

  python3 tests/bench/make_gguf.py DIRECTORY F32 Q8_0 Q4_0
  python3 tests/bench/quality.py build/tests/bench/wan-bench --dtype fp32 --model DIRECTORY/F32 \\
      --variant "--model DIRECTORY/Q8_0" --variant "--model DIRECTORY/Q4_0"

Writes a model DIRECTORY/TYPE for each type, which takes the other parts from DIRECTORY/wan-tiny, a copy. The matrices of
the blocks are quantized, all else is float32. Needs gguf and numpy; the types are those that gguf can quantize to.
"""
import json
import pathlib
import shutil
import sys

import gguf
import numpy as np

EMBEDDED_MODEL = pathlib.Path(__file__).resolve().parents[2] / "models/wan-tiny"


def read_bfloat16(path):
    """All tensors of a safetensors file of bfloat16, in float32."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "BF16"
        first, last = entry["data_offsets"]
        halves = np.frombuffer(data[begin + first:begin + last], np.uint16)
        yield name, (halves.astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])


def write_expert(path, tensors, kind):
    writer = gguf.GGUFWriter(path, "wan")
    for name, values in tensors:
        is_quantized = name.startswith("blocks.") and values.ndim == 2
        stored = kind if is_quantized else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(directory, kind):
    directory.mkdir(exist_ok=True)
    suggestions = json.loads((EMBEDDED_MODEL / "gst-wan.json").read_text())
    (directory / "gst-wan.json").write_text(json.dumps(suggestions | {"components": "../wan-tiny"}))
    for expert, noise in (("transformer", "high"), ("transformer_2", "low")):
        tensors = read_bfloat16(EMBEDDED_MODEL / expert / "diffusion_pytorch_model.safetensors")
        write_expert(directory / f"{noise}_noise.gguf", tensors, kind)


def main():
    directory = pathlib.Path(sys.argv[1])
    shutil.copytree(EMBEDDED_MODEL, directory / "wan-tiny", dirs_exist_ok=True)
    for name in sys.argv[2:]:
        write_model(directory / name, gguf.GGMLQuantizationType[name])


if __name__ == "__main__":
    main()
