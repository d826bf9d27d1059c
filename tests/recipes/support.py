# What the tests of the examples share: a small model, and what a video is like.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import json
import os
import pathlib
import subprocess
import tempfile

from peers import ffprobe

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
WIDTH, HEIGHT, FRAMES, FPS = 64, 48, 9, 16  # of a clip, where a line leaves them open


class SmallModel:
    """The embedded model with little to do: lines run as they stand, since what they leave open is the model's to say."""

    def __init__(self, **settings):
        self._directory = tempfile.TemporaryDirectory(prefix="wan-model-")
        self.path = pathlib.Path(self._directory.name)
        for file in pathlib.Path(os.environ["GST_WAN_MODEL"]).resolve().iterdir():
            (self.path / file.name).symlink_to(file)
        (self.path / "gst-wan.json").unlink()
        defaults = {"width": WIDTH, "height": HEIGHT, "num_frames": FRAMES, "framerate": f"{FPS}/1", "steps": 1}
        (self.path / "gst-wan.json").write_text(json.dumps({**defaults, "guidance_scale": 1, **settings}))

    def close(self):
        self._directory.cleanup()


class Display:
    """An X server without a screen."""

    def __init__(self):
        self.process = subprocess.Popen(["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-noreset"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.name = f":{self.process.stdout.readline().strip()}"

    def pixels(self):
        """Of the whole screen: red, green and blue, one after the other."""
        done = subprocess.run(["ffmpeg", "-v", "error", "-f", "x11grab", "-draw_mouse", "0", "-i", self.name, "-frames:v", "1",
                               "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True)
        return done.stdout

    def is_drawn_on(self):
        return max(self.pixels()) > 32

    def colour(self):
        """What there is most of."""
        pixels = self.pixels()
        return max(range(3), key=lambda channel: sum(pixels[channel::3]))

    def close(self):
        self.process.terminate()
        self.process.communicate()


def size_and_frames(file, directory):
    """Width, height and number of frames that can be decoded."""
    entries = "stream=width,height,nb_read_frames"  # of a playlist, once in its program and once by itself
    line, *_ = ffprobe("-count_frames", "-select_streams", "v", "-show_entries", entries, file, directory=directory)
    return tuple(map(int, line))
