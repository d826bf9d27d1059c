# A small model that takes pictures, for the tests of what stands around the element.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import json
import pathlib
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


class PictureModel:
    """The TI2V model of tests/parity, in Diffusers' format: random weights, so its videos show nothing, but each begins from its
    picture if it has one."""

    def __init__(self, **settings):
        self._directory = tempfile.TemporaryDirectory(prefix="wan-picture-model-")
        self.path = pathlib.Path(self._directory.name)
        parity, embedded = ROOT / "tests/parity", ROOT / "models/wan-tiny"
        configs = json.loads((parity / "conditioned/configs.json").read_text())["ti2v-5b"]
        for file, config in (("model_index.json", "model_index"), ("transformer/config.json", "transformer"),
                             ("scheduler/scheduler_config.json", "scheduler")):
            (self.path / file).parent.mkdir(exist_ok=True)
            (self.path / file).write_text(json.dumps(configs[config]))
        (self.path / "transformer/diffusion_pytorch_model.safetensors").symlink_to(parity / "conditioned/ti2v.safetensors")
        (self.path / "vae").symlink_to(parity / "vae48")
        for part in ("tokenizer", "text_encoder"):
            (self.path / part).symlink_to(embedded / part)
        (self.path / "gst-wan.json").write_text(json.dumps({
            "width": 96, "height": 64, "num_frames": 9, "framerate": "16/1", "steps": 1, "guidance_scale": 1, **settings}))

    def close(self):
        self._directory.cleanup()
