#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a model whose clips take as long to decode as the released one's, without its 126 GB.

  python3 tests/pipelines/make_bench_model.py DIR

The embedded model with a VAE of the released width (base_dim 96 in place of 8) and random weights. Its videos are
noise. Of the VAE only what decoding needs is written: 290 MB.
"""
import array
import json
import math
import os
import random
import shutil
import struct
import sys

TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/wan-tiny")
WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
BASE_DIM = 96


def read_header(path):
    with open(path, "rb") as file:
        return json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))


def widen(name, shape, factor):
    """The shape in a VAE whose channels are `factor` times as many; latents and colours stay."""
    if name.startswith("post_quant_conv"):
        return shape
    channels = [size if size == 3 or size == 1 else size * factor for size in shape[:2]]
    if name == "decoder.conv_in.weight":
        channels[1] = shape[1]
    return channels + shape[2:]


def values(name, shape):
    """Ones for norms, zeros for biases, and weights of about variance 1 / fan-in, as float32."""
    count = math.prod(shape)
    if name.endswith("gamma"):
        return array.array("f", [1.0]) * count
    if name.endswith("bias"):
        return bytes(4 * count)
    # Random signs and mantissas with one exponent: magnitudes from 2^e to 2^(e + 1).
    exponent = 127 + round(-0.5 * math.log2(count / shape[0]) - 0.6)
    data = bytearray(random.randbytes(4 * count))
    data[2::4] = data[2::4].translate(bytes(b & 127 | (exponent & 1) << 7 for b in range(256)))
    data[3::4] = data[3::4].translate(bytes(b & 128 | exponent >> 1 for b in range(256)))
    return data


def write_vae(directory):
    with open(os.path.join(TINY, "vae/config.json")) as file:
        config = json.load(file)
    factor = BASE_DIM // config["base_dim"]
    config["base_dim"] = BASE_DIM
    with open(os.path.join(directory, "vae/config.json"), "w") as file:
        json.dump(config, file, indent=2)

    header, end = {}, 0
    for name, tensor in read_header(os.path.join(TINY, WEIGHTS)).items():
        if name.startswith(("decoder.", "post_quant_conv.")):
            shape = widen(name, tensor["shape"], factor)
            begin, end = end, end + 4 * math.prod(shape)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(directory, WEIGHTS), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in header.items():
            file.write(values(name, tensor["shape"]))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    shutil.copytree(TINY, sys.argv[1], ignore=shutil.ignore_patterns("vae"), dirs_exist_ok=True)
    os.makedirs(os.path.join(sys.argv[1], "vae"), exist_ok=True)
    random.seed(0)
    write_vae(sys.argv[1])


if __name__ == "__main__":
    main()
