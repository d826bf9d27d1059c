#!/usr/bin/env python3
# Runs every line of examples/recipes.md, and looks at what it made.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The words behind ```sh say how:

file=F     F is a video when the line has ended: of the model's size or size=WxH, and of clips=N (1) clips, seconds=N, or
           frames=N. What has=TEXT says occurs in it more than once
live       the line goes on until SIGINT, and ends well then
live=KIND  the same, and somebody receives KIND: see Receiver
display    on an X server; a live line must draw something on it
needs=WHY  it is not run
endless    with the embedded model that makes an endless video
says=F     the video, blue before, becomes what a line says that is added to F
model=M    a small model that takes pictures stands at M

A block ```srt NAME is a file that the lines may use, and so is photo.jpg. Ports are replaced by free ones, and cameras by
videotestsrc."""

import os
import pathlib
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from peers import free_port, listens, nginx_rtmp, until
from picture_model import PictureModel
from support import EXAMPLES, FPS, FRAMES, HEIGHT, ROOT, WIDTH, Display, SmallModel, size_and_frames

BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PORTS = {"1935": socket.SOCK_STREAM, "8888": socket.SOCK_DGRAM, "5004": socket.SOCK_DGRAM}
TEXT = (EXAMPLES / "recipes.md").read_text()


class Recipe:
    def __init__(self, match):
        self.language, words, self.script = match[1], shlex.split(match[2]), match[3]
        self.words = dict(word.split("=", 1) if "=" in word else (word, "") for word in words)
        self.line = TEXT.count("\n", 0, match.start()) + 2


BLOCKS = [Recipe(match) for match in BLOCK.finditer(TEXT)]


class Process:
    """A command in a session of its own, its output in a file."""

    def __init__(self, command, directory, name, **environment):
        self.name, self.log = name, directory / f"{name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, cwd=directory, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def interrupt(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def end(self):
        """Waits for the end, and returns the exit status."""
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise RuntimeError(f"{self.name} does not end: {self.log.read_text()}") from None

    def kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Receiver:
    """An ffmpeg that takes what a live line sends, and counts."""

    def __init__(self, kind, ports, directory):
        self.progress = directory / "progress"
        source = {
            "rtmp": ["-rw_timeout", "60000000", "-i", f"rtmp://127.0.0.1:{ports['1935']}/live/wan"],
            "srt": ["-i", f"srt://127.0.0.1:{ports['8888']}"],
            "rtp": ["-protocol_whitelist", "file,rtp,udp", "-analyzeduration", "30000000", "-i", "wan.sdp"],
        }[kind]
        (directory / "wan.sdp").write_text("v=0\no=- 0 0 IN IP4 127.0.0.1\ns=wan\nc=IN IP4 127.0.0.1\nt=0 0\n"
                                           f"m=video {ports['5004']} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
                                           "a=fmtp:96 packetization-mode=1\n")
        self.process = Process(["ffmpeg", "-v", "error", *source, "-c", "copy", "-stats_period", "0.1",
                                "-progress", self.progress, "received.mkv"], directory, "receiver")

    def frames(self):
        if self.process.process.poll() is not None:
            raise RuntimeError(f"the receiver has ended: {self.process.log.read_text()}")
        counts = re.findall(r"frame=(\d+)", self.progress.read_text()) if self.progress.exists() else []
        return int(counts[-1]) if counts else 0


class Recipes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model, cls.display = SmallModel(), Display()
        cls.picture_model = PictureModel(width=160, height=96)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()
        cls.picture_model.close()
        cls.display.close()

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="wan-recipe-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.ports = {port: str(free_port(kind)) for port, kind in PORTS.items()}
        (self.directory / "photo.jpg").symlink_to(EXAMPLES / "photo.jpg")
        for block in BLOCKS:
            if block.language == "srt":
                (self.directory / next(iter(block.words))).write_text(block.script)

    def run_recipe(self, recipe):
        if reason := recipe.words.get("needs"):
            self.skipTest(reason)
        kind = recipe.words.get("live")
        if kind == "rtmp":
            self.start_nginx()
        receiver = self.receive(kind) if kind == "rtp" else None  # it must be there first
        line = self.start(recipe)
        if kind in ("rtmp", "srt"):
            until(lambda: "to PLAYING" in line.log.read_text())
            receiver = self.receive(kind)
        if kind is not None:
            self.wait_for_sign_of(kind, line, receiver)
            if "says" in recipe.words:
                self.say(recipe.words["says"])
            if receiver:
                receiver.process.interrupt()
                receiver.process.end()
                self.assertEqual(size_and_frames("received.mkv", self.directory)[:2], (160, 96) if "endless" in recipe.words else (WIDTH, HEIGHT))
            line.interrupt()
        status = line.end()
        self.assertEqual(status, 0, line.log.read_text())
        self.assertNotRegex(line.log.read_text(), r"(?i)\b(error|critical|warning)\b")
        self.look_at_files(recipe)

    def say(self, file):
        until(lambda: self.received_colour() == "blue")
        with (self.directory / file).open("a") as chat:
            chat.write("a green ring on a green background\n")
        until(lambda: self.received_colour() == "green")

    def received_colour(self):
        """What the newest frame that was received has most of."""
        done = subprocess.run(["ffmpeg", "-v", "quiet", "-i", "received.mkv", "-vf", "scale=1:1", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
                              cwd=self.directory, capture_output=True)
        pixel = done.stdout[-3:]
        return pixel and ("red", "green", "blue")[pixel.index(max(pixel))]

    def start(self, recipe):
        script = recipe.script
        for port, free in self.ports.items():
            script = script.replace(f":{port}", f":{free}").replace(f"port={port}", f"port={free}")
        script = script.replace("v4l2src", "videotestsrc is-live=true")
        if "model" in recipe.words:
            (self.directory / recipe.words["model"]).symlink_to(self.picture_model.path)
        display = {"DISPLAY": self.display.name} if "display" in recipe.words else {}
        model = "" if "endless" in recipe.words else str(self.model.path)
        line = Process(["bash", "-o", "pipefail", "-c", script], self.directory, "line",
                       GST_WAN_MODEL=model, GST_WAN_MODELS=str(ROOT / "models"), **display)
        self.addCleanup(line.kill)
        return line

    def receive(self, kind):
        receiver = Receiver(kind, self.ports, self.directory)
        self.addCleanup(receiver.process.kill)
        return receiver

    def start_nginx(self):
        nginx = Process(nginx_rtmp(self.directory, self.ports["1935"]), self.directory, "nginx")
        self.addCleanup(nginx.kill)
        until(lambda: listens(int(self.ports["1935"])))

    def wait_for_sign_of(self, kind, line, receiver):
        def seen():
            if line.process.poll() is not None:
                raise RuntimeError(f"the line has ended: {line.log.read_text()}")
            if receiver:
                return receiver.frames() >= FPS
            if kind == "hls":
                playlist = self.directory / "live.m3u8"
                return playlist.exists() and ".ts" in playlist.read_text()
            return self.display.is_drawn_on()

        until(seen)

    def look_at_files(self, recipe):
        words = recipe.words
        if words.get("live") == "hls":
            self.assertGreaterEqual(size_and_frames("live.m3u8", self.directory)[2], FPS)
        if "file" not in words:
            return
        width, height, frames = size_and_frames(words["file"], self.directory)
        self.assertEqual((width, height), tuple(map(int, words.get("size", f"{WIDTH}x{HEIGHT}").split("x"))))
        if "live" in words:
            self.assertGreaterEqual(frames, FPS)
        else:
            whole = int(words["seconds"]) * FPS if "seconds" in words else int(words.get("clips", 1)) * FRAMES
            self.assertEqual(frames, int(words.get("frames", whole)))
        if "has" in words:
            self.assertGreater((self.directory / words["file"]).read_bytes().count(words["has"].encode()), 1)


def add_tests():
    lines = [block for block in BLOCKS if block.language == "sh"]
    for recipe in lines:
        setattr(Recipes, f"test_line_{recipe.line:03}", lambda self, recipe=recipe: self.run_recipe(recipe))
    return len(lines)


if __name__ == "__main__":
    if not add_tests():
        sys.exit("recipes.md has no lines")
    unittest.main(verbosity=2)
