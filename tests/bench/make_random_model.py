#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a checkpoint of a released model's size with random weights, for figures that need files:

  python3 tests/bench/make_random_model.py DIRECTORY T2V-A14B   DIRECTORY/Q4_K: two experts as .gguf, 8 GB each
  python3 tests/bench/make_random_model.py DIRECTORY longlive   DIRECTORY: a causal model of 1.3B, bfloat16, 3 GB
  python3 tests/bench/make_random_model.py DIRECTORY longlive2  DIRECTORY: one of 5B, 10 GB

Its videos are noise. The text encoder has the released width and two layers. Needs torch, diffusers 0.40.0 and
transformers; T2V-A14B needs gguf, numpy and twice a file's size of memory.
"""
import argparse
import json
import pathlib
import shutil

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from transformers import UMT5Config, UMT5EncoderModel

from peer_diffusers import TI2V_VAE, TRANSFORMERS

TINY = pathlib.Path(__file__).resolve().parents[2] / "models/wan-tiny"
# No byte of a block is greater, so that the scales in it, whatever their place, are small numbers.
LARGEST_BYTE = 31


def random_blocks(shape, kind):
    import gguf
    import numpy as np
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    shape = (*shape[:-1], shape[-1] // elements * size)
    return np.random.default_rng(0).integers(0, LARGEST_BYTE + 1, shape, np.uint8)


def write_gguf(path, transformer, type_name):
    import gguf
    import numpy as np
    kind = gguf.GGMLQuantizationType[type_name]
    with torch.device("meta"):
        model = WanTransformer3DModel(**transformer)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    writer = gguf.GGUFWriter(path, "wan")
    for name, shape in shapes.items():
        if name.startswith("blocks.") and len(shape) == 2:
            writer.add_tensor(name, random_blocks(shape, kind), raw_dtype=kind)
        else:
            values = 0.01 * np.random.default_rng(0).standard_normal(shape, np.float32)
            writer.add_tensor(name, values, raw_dtype=gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_components(directory, transformer, vae):
    """All but the weights of the transformers, in Diffusers' format."""
    shutil.copytree(TINY, directory, ignore=shutil.ignore_patterns("*.safetensors", "gst-wan.json"))
    config = json.loads((TINY / "text_encoder/config.json").read_text()) | {"d_model": 4096}
    UMT5EncoderModel(UMT5Config(**config)).to(torch.bfloat16).save_pretrained(directory / "text_encoder")
    AutoencoderKLWan(**vae).to(torch.bfloat16).save_pretrained(directory / "vae")
    for expert in ("transformer", "transformer_2"):
        with torch.device("meta"):
            WanTransformer3DModel(**transformer).save_config(directory / expert)


def leave_one_expert(directory, expand_timesteps):
    shutil.rmtree(directory / "transformer_2")
    index = json.loads((directory / "model_index.json").read_text())
    index |= {"transformer_2": [None, None], "boundary_ratio": None, "expand_timesteps": expand_timesteps}
    (directory / "model_index.json").write_text(json.dumps(index))


def write_a14b(directory, type_name):
    transformer = {}
    write_components(directory / "components", transformer, {})
    model = directory / type_name
    model.mkdir()
    (model / "gst-wan.json").write_text(json.dumps({"components": "../components"}))
    write_gguf(model / "high_noise.gguf", transformer, type_name)
    shutil.copyfile(model / "high_noise.gguf", model / "low_noise.gguf")


def write_causal(directory, family, transformer, vae):
    write_components(directory, transformer, vae)
    leave_one_expert(directory, expand_timesteps=vae is TI2V_VAE)
    (directory / "gst-wan.json").write_text(json.dumps({"causal": family}))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        WanTransformer3DModel(**transformer).to(torch.bfloat16).save_pretrained(directory / "transformer")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("model", choices=["T2V-A14B", "longlive", "longlive2"])
    parser.add_argument("--type", default="Q4_K", help="GGUF's, of T2V-A14B (Q4_K)")
    options = parser.parse_args()
    if options.model == "longlive":
        write_causal(options.directory, "longlive", TRANSFORMERS["Wan2.1-T2V-1.3B"], {})
    elif options.model == "longlive2":
        write_causal(options.directory, "longlive2", TRANSFORMERS["TI2V-5B"], TI2V_VAE)
    else:
        write_a14b(options.directory, options.type)


if __name__ == "__main__":
    main()
