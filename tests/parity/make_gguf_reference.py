#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes gguf.safetensors, blocks of every quantized type and what gguf.quants.dequantize() makes of them, and a file
of GGUFWriter for the corpus of tests/fuzz. Needs gguf 0.19.0, numpy and safetensors:

  python3 tests/parity/make_gguf_reference.py
"""
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
# Of each type, where a block has its numbers of 16 bits.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
          Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0], Type.IQ4_XS: [0]}
VALUES = 2048


def random_halves(generator, count):
    """Finite ones of every size: zeros and the smallest among them."""
    halves = generator.integers(0, 0x7c00, count, dtype=np.uint16) | generator.integers(0, 2, count, dtype=np.uint16) << 15
    halves[:4] = [0, 0x8000, 1, 0x7bff]
    return halves


def random_blocks(type, generator):
    """Any bytes are a block."""
    elements, size = gguf.GGML_QUANT_SIZES[type]
    blocks = generator.integers(0, 256, (VALUES // elements, size), dtype=np.uint8)
    blocks[-2:, :] = [[0], [255]]
    for at in HALVES[type]:
        blocks[:, at:at + 2] = random_halves(generator, len(blocks)).view(np.uint8).reshape(-1, 2)
    return blocks


def write_blocks(path):
    generator = np.random.default_rng(17)
    tensors = {}
    for type in HALVES:
        blocks = random_blocks(type, generator)
        tensors[f"{type.name}.blocks"] = blocks.reshape(-1)
        tensors[f"{type.name}.values"] = gguf.quants.dequantize(blocks, type).reshape(-1)
    save_file(tensors, path)


def write_file(path):
    """A tensor of every kind that the package can write, among metadata of every kind."""
    writer = gguf.GGUFWriter(path, "wan")
    writer.add_uint8("a.uint8", 1)
    writer.add_int16("a.int16", -2)
    writer.add_float64("a.float64", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_string("a.string", "text")
    writer.add_array("tokenizer.ggml.tokens", ["<pad>", "</s>", "\u2581a"])
    writer.add_array("tokenizer.ggml.scores", [0.0, -1.5, -2.5])
    values = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("plain.weight", values)
    writer.add_tensor("half.weight", values.astype(np.float16))
    for type in (Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0):
        writer.add_tensor(f"{type.name}.weight", gguf.quants.quantize(values, type), raw_dtype=type)
    # As ComfyUI-GGUF writes a table, a convolution of three dimensions and a tensor that it has reshaped.
    writer.add_tensor("head.modulation", values.reshape(1, 2, 32))
    writer.add_tensor("patch_embedding.weight", values.reshape(8, 2, 1, 2, 2))
    writer.add_array("comfy.gguf.orig_shape.reshaped.weight", (16, 4))
    writer.add_tensor("reshaped.weight", gguf.quants.quantize(values, Type.Q8_0), raw_dtype=Type.Q8_0)
    # As stable-diffusion.cpp writes a convolution of three dimensions.
    writer.add_tensor("merged.weight", values.reshape(16, 1, 2, 2))
    writer.add_tensor("merged.bias", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write_blocks(HERE / "gguf.safetensors")
    corpus = HERE.parent / "fuzz/corpus/gguf"
    corpus.mkdir(exist_ok=True)
    write_file(corpus / "written")
