#!/usr/bin/env python3
# The examples embed.cpp, embed.py, clip_files.py and quickstart.sh.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from peers import ffprobe, until
from picture_model import PictureModel
from support import EXAMPLES, FPS, FRAMES, HEIGHT, ROOT, WIDTH, Display, SmallModel, size_and_frames

PROGRAMS = {"C++": [os.environ["WAN_TEST_EMBED"]], "Python": [sys.executable, str(EXAMPLES / "embed.py")]}
PROMPTS = ["a red circle on a red background", "a blue square on a blue background", "a green ring on a green background"]
FRAME = re.compile(r"clip (\d+), frame (\d+), ([\d.]+) s: #(..)(..)(..)")


class Embed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # Enough of the model's own size and steps for its colours to be those of the prompt.
        cls.model = SmallModel(width=160, height=96, steps=4, guidance_scale=2.5)

    @classmethod
    def tearDownClass(cls):
        cls.model.close()

    def start(self, language, *arguments, **environment):
        environment = {**os.environ, "GST_WAN_MODEL": str(self.model.path), **environment}
        process = subprocess.Popen([*PROGRAMS[language], *arguments], env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.kill)
        return process

    def run_to_end(self, language, *arguments, **environment):
        process = self.start(language, *arguments, **environment)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    def each(self, check):
        for language in PROGRAMS:
            with self.subTest(language):
                check(language)

    def test_prompts_follow_each_other(self):
        outputs = {}

        def check(language):
            status, out, err = self.run_to_end(language, *PROMPTS)
            self.assertEqual(status, 0, err)
            outputs[language] = out
            frames = [FRAME.fullmatch(line).groups() for line in out.splitlines()]
            self.assertEqual([(int(clip), int(frame)) for clip, frame, *_ in frames],
                             [(clip, frame) for clip in range(3) for frame in range(FRAMES)])
            for number, (_, _, seconds, *_) in enumerate(frames):
                self.assertAlmostEqual(float(seconds), number / FPS, delta=0.001)
            for clip, wanted in enumerate([0, 2, 1]):  # red, blue, green
                colours = [[int(value, 16) for value in frame[3:]] for frame in frames[clip * FRAMES:(clip + 1) * FRAMES]]
                mean = [sum(channel) for channel in zip(*colours)]
                self.assertEqual(mean.index(max(mean)), wanted, f"clip {clip}: {mean}")
            self.assertIn("clip 2: denoise 4/4", err)

        self.each(check)
        self.assertEqual(outputs["C++"], outputs["Python"])

    def test_clips_begin_with_pictures(self):
        model = PictureModel()
        self.addCleanup(model.close)

        def run(*arguments):
            outputs = set()
            for language in PROGRAMS:
                status, out, err = self.run_to_end(language, "--model", str(model.path), *arguments, *PROMPTS[:2])
                self.assertEqual((status, len(out.splitlines())), (0, 2 * FRAMES), err)
                outputs.add(out)
            self.assertEqual(len(outputs), 1)
            return outputs.pop()

        photo = str(EXAMPLES / "photo.jpg")
        videos = [run(), run("--image", photo), run("--colour", "3060c0"), run("--colour", "c06030")]
        self.assertEqual(len(set(videos)), 4)

    def test_a_model_that_takes_no_picture_says_so(self):
        def check(language):
            status, out, err = self.run_to_end(language, "--image", str(EXAMPLES / "photo.jpg"), "a red circle")
            self.assertEqual((status, out), (1, ""))
            self.assertIn("takes no image", err)

        self.each(check)

    def test_missing_model(self):
        def check(language):
            status, out, err = self.run_to_end(language, "--model", "/nowhere", "a red circle")
            self.assertEqual((status, out), (1, ""))
            self.assertIn("/nowhere", err)
            self.assertEqual(len(err.splitlines()), 1, err)

        self.each(check)

    def test_missing_plugin(self):
        def check(language):
            nothing = {"GST_PLUGIN_PATH": "/nowhere", "GST_REGISTRY": str(self.model.path / "registry")}
            status, out, err = self.run_to_end(language, "a red circle", **nothing)
            self.assertEqual((status, out), (1, ""))
            self.assertRegex(err, r'"?wansrc"?.* Is GST_PLUGIN_PATH set\?')

        self.each(check)

    def test_no_prompt(self):
        def check(language):
            status, out, err = self.run_to_end(language)
            self.assertEqual((status, out), (2, ""))
            self.assertRegex(err, r"(?i)^usage: embed")

        self.each(check)

    def test_interrupt(self):
        """What was made comes out; what was not is not waited for."""
        def check(language):
            process = self.start(language, *PROMPTS * 100)
            self.assertRegex(process.stdout.readline(), FRAME)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, err)
            self.assertLess(len(out.splitlines()), 100 * FRAMES)

        self.each(check)


class Quickstart(unittest.TestCase):
    """With stand-ins for what installs and builds, and for the model that takes pictures."""

    SETUP = """set -euo pipefail
        root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) build_packages=() run_packages=()
        fail() { echo "error: $*" >&2; exit 1; }
        say() { echo "$*"; }
        install_packages() { echo "packages $*"; }
        install_libtorch() { :; }; find_nvcc() { :; }; configure() { :; }; build() { :; }
        meson() { [ "$4" = --dump ] || { shift 5; "$@"; }; }
    """

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="wan quickstart-")
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        for name in ("tools", "examples", "models"):
            (self.root / name).mkdir()
        (self.root / "tools/setup.sh").write_text(self.SETUP)
        shutil.copy(EXAMPLES / "quickstart.sh", self.root / "examples")
        for model, name in ((SmallModel(), "wan-tiny"), (PictureModel(), "wan-tiny-ti2v")):
            self.addCleanup(model.close)
            (self.root / "models" / name).symlink_to(model.path)

    def run_quickstart(self, *arguments):
        return subprocess.run(["bash", "examples/quickstart.sh", *arguments], cwd=self.root, text=True, timeout=60,
                              capture_output=True, env={**os.environ, "GST_WAN_MODEL": str(self.root / "models/wan-tiny")})

    def test_a_prompt_becomes_a_video(self):
        done = self.run_quickstart('a "red" \\ circle')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(size_and_frames("wan.mp4", self.root), (WIDTH, HEIGHT, FRAMES))
        title = ffprobe("-of", "default=nk=1:nw=1", "-show_entries", "format_tags=title", "wan.mp4", directory=self.root)
        self.assertEqual(title, [['a "red" \\ circle']])

    def test_a_picture_becomes_a_video(self):
        shutil.copy(EXAMPLES / "photo.jpg", self.root / 'a "photo".jpg')
        done = self.run_quickstart("--image", 'a "photo".jpg', "moving to the left")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("packages gstreamer1.0-plugins-bad", done.stdout)
        self.assertEqual(size_and_frames("wan.mp4", self.root), (96, 32, FRAMES))  # the picture's aspect

    def start_live(self, **environment):
        """With the embedded endless model."""
        process = subprocess.Popen(["bash", "examples/quickstart.sh", "--live", PROMPTS[1]], cwd=self.root, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                                   env={**os.environ, "GST_WAN_MODEL": "", "GST_WAN_MODELS": str(ROOT / "models"), **environment})
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_what_is_typed_is_shown_in_a_window(self):
        display = Display()
        self.addCleanup(display.close)
        process = self.start_live(DISPLAY=display.name)
        self.assertIn("gstreamer1.0-x", process.stdout.readline())
        self.assertIn("Type what", process.stdout.readline())
        until(display.is_drawn_on)
        until(lambda: display.colour() == 2)
        process.stdin.write("a green ring on a green background\n")
        process.stdin.flush()
        until(lambda: display.colour() == 1)
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(60), 0)

    def test_without_a_display_the_studio_is_served(self):
        (self.root / "build/examples").mkdir(parents=True)
        (self.root / "build/build.ninja").write_text("live-studio")
        (self.root / "build/examples/live-studio").symlink_to(pathlib.Path(os.environ["WAN_TEST_STUDIO"]).parent)
        process = self.start_live(DISPLAY="", WAYLAND_DISPLAY="")
        self.assertIn("libsoup-3.0-dev", process.stdout.readline())
        self.assertIn("browser", process.stdout.readline())
        self.assertRegex(process.stdout.readline(), r"^The studio is at http://127\.0\.0\.1:8080/$")
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(60), 0)

    def test_a_picture_that_is_not_there_is_told_before_anything_is_installed(self):
        done = self.run_quickstart("--image", "nothing.jpg")
        self.assertEqual((done.returncode, done.stdout, done.stderr),
                         (1, "", "error: the picture nothing.jpg cannot be read\n"))


class ClipFiles(unittest.TestCase):
    def test_each_clip_is_a_file(self):
        model = SmallModel()
        self.addCleanup(model.close)
        with tempfile.TemporaryDirectory(prefix="wan-clips-") as directory:
            command = [sys.executable, str(EXAMPLES / "clip_files.py"), *PROMPTS]
            done = subprocess.run(command, cwd=directory, env={**os.environ, "GST_WAN_MODEL": str(model.path)},
                                  capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual((done.returncode, done.stdout), (0, ""), done.stderr)
            files = sorted(os.listdir(directory))
            self.assertEqual(files, [f"clip-{number:05d}.mp4" for number in range(len(PROMPTS))])
            for file in files:
                self.assertEqual(size_and_frames(file, directory), (WIDTH, HEIGHT, FRAMES))


if __name__ == "__main__":
    unittest.main(verbosity=2)
