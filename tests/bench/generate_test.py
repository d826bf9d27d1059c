#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""wan-bench generate on the CPU, with small models: what it prints and writes. generate_test.py WAN_BENCH MODEL PARITY

MODEL: the embedded model. PARITY: tests/parity, which has the weights of one that takes pictures.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile


def make_picture_model(model, parity, directory):
    """A small TI2V-5B."""
    os.makedirs(os.path.join(directory, "transformer"))
    os.mkdir(os.path.join(directory, "scheduler"))
    with open(os.path.join(parity, "conditioned", "configs.json")) as file:
        configs = json.load(file)["ti2v-5b"]
    for name, part in (("model_index.json", "model_index"), ("scheduler/scheduler_config.json", "scheduler"),
                       ("transformer/config.json", "transformer")):
        with open(os.path.join(directory, name), "w") as file:
            json.dump(configs[part], file)
    shutil.copy(os.path.join(parity, "conditioned", "ti2v.safetensors"),
                os.path.join(directory, "transformer", "diffusion_pytorch_model.safetensors"))
    for name, source in (("vae", os.path.join(parity, "vae48")), ("tokenizer", os.path.join(model, "tokenizer")),
                         ("text_encoder", os.path.join(model, "text_encoder"))):
        os.symlink(source, os.path.join(directory, name))


def check_pictures(wan_bench, model):
    command = [wan_bench, "generate", "--model", model, "--device", "cpu", "--dtype", "fp32", "--size", "64x32",
               "--frames", "5", "--steps", "1", "--clips", "2", "--checksum", "--json"]
    reports = [json.loads(subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE).stdout)
               for options in ((), ("--picture", "50x40"), ("--picture", "50x40", "--new-prompts"))]
    assert [report["pictures_s"] > 0 for report in reports] == [False, True, True], reports
    assert all(0 < report["first_chunk_s"] < report["first_frame_s"] for report in reports), reports
    film = subprocess.run([sys.executable, os.path.join(os.path.dirname(__file__), "drift.py"), wan_bench, "--model", model,
                           "--clips", "3", *command[4:-4]], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert len(film.splitlines()) == 2 + 3 and "| clip 3 |" in film, film
    # The last clip has the prompt itself, whatever was made before.
    assert reports[0]["checksum"] != reports[1]["checksum"] == reports[2]["checksum"], reports


def main(wan_bench, model, parity):
    with tempfile.TemporaryDirectory() as directory:
        path = lambda name: os.path.join(directory, name)

        def generate(*options):
            command = [wan_bench, "generate", "--model", model, "--device", "cpu", "--dtype", "fp32", "--size", "64x32",
                       "--frames", "5", "--out", path("out"), "--latents", path("latents"), "--json", *options]
            report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            with open(path("out"), "rb") as out:
                frames = out.read()
            assert len(frames) == 5 * 32 * 64 * 3
            assert os.path.getsize(path("latents")) == report["steps"] * 16 * 2 * 4 * 8 * 4
            assert all(report[key] > 0 for key in ("text_s", "denoise_s", "decode_s", "first_frame_s")), report
            return report, frames

        report, frames = generate("--steps", "4", "--seed", "7")
        assert (report["steps"], report["forwards"], report["cached_forwards"]) == (4, 8, 0)
        assert generate("--steps", "4", "--seed", "7")[1] == frames != generate("--steps", "4", "--seed", "8")[1]
        report, cached = generate("--steps", "4", "--seed", "7", "--cache", "first-block", "--cache-threshold", "9")
        assert report["cached_forwards"] > 0 and cached != frames
        report, _ = generate("--sigmas", "1,0.75,0.5", "--scheduler", "euler", "--flow-shift", "5",
                             "--guidance-scale", "1", "--prompt", "a green star")
        assert (report["steps"], report["forwards"]) == (3, 3)

        make_picture_model(model, parity, path("pictures"))
        check_pictures(wan_bench, path("pictures"))


if __name__ == "__main__":
    main(*sys.argv[1:])
