#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Quantizes the embedded model's experts as ComfyUI-GGUF does, so that quality.py can tell what a type costs:

  python3 tests/bench/make_gguf.py DIRECTORY F32 Q8_0 Q4_0
  python3 tests/bench/make_gguf.py DIRECTORY Q4_K IQ4_XS --ggml build/src/libggml-base.so
  python3 tests/bench/quality.py build/tests/bench/wan-bench --dtype fp32 --model DIRECTORY/F32 \\
      --variant "--model DIRECTORY/Q8_0" --variant "--model DIRECTORY/Q4_0"

Writes a model DIRECTORY/TYPE for each type, which takes the other parts from DIRECTORY/wan-tiny, a copy. The matrices of
the blocks are quantized, all else is float32. Needs gguf and numpy. gguf quantizes to some types only; ggml's library,
as llama.cpp and stable-diffusion.cpp use it, does to all.
"""
import argparse
import ctypes
import json
import pathlib
import shutil

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


class Quantizer:
    def __init__(self, ggml):
        self.ggml = ctypes.CDLL(ggml) if ggml else None
        if self.ggml:
            self.ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
            self.ggml.ggml_quantize_chunk.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64,
                                                      ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

    def __call__(self, values, kind):
        """values: a matrix in float32, not weighted by importance."""
        if not self.ggml or kind not in gguf.GGML_QUANT_SIZES or gguf.GGML_QUANT_SIZES[kind][0] == 1:
            return gguf.quants.quantize(values, kind)
        values = np.ascontiguousarray(values)
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.empty((values.shape[0], values.shape[1] // elements * size), np.uint8)
        written = self.ggml.ggml_quantize_chunk(kind, values.ctypes.data, blocks.ctypes.data, 0, *values.shape, None)
        assert written == blocks.nbytes
        return blocks


def write_expert(path, tensors, kind, quantize):
    writer = gguf.GGUFWriter(path, "wan")
    for name, values in tensors:
        is_quantized = name.startswith("blocks.") and values.ndim == 2
        stored = kind if is_quantized else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_model(directory, kind, quantize):
    directory.mkdir(exist_ok=True)
    suggestions = json.loads((EMBEDDED_MODEL / "gst-wan.json").read_text())
    (directory / "gst-wan.json").write_text(json.dumps(suggestions | {"components": "../wan-tiny"}))
    for expert, noise in (("transformer", "high"), ("transformer_2", "low")):
        tensors = read_bfloat16(EMBEDDED_MODEL / expert / "diffusion_pytorch_model.safetensors")
        write_expert(directory / f"{noise}_noise.gguf", tensors, kind, quantize)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("types", nargs="+", choices=gguf.GGMLQuantizationType.__members__, metavar="TYPE")
    parser.add_argument("--ggml", help="the library libggml-base.so")
    options = parser.parse_args()
    quantize = Quantizer(options.ggml)
    shutil.copytree(EMBEDDED_MODEL, options.directory / "wan-tiny", dirs_exist_ok=True)
    for name in options.types:
        write_model(options.directory / name, gguf.GGMLQuantizationType[name], quantize)


if __name__ == "__main__":
    main()
