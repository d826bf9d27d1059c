# What the tests of real servers share: the show that they are sent, processes, and what came out.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The show is two clips of 33 frames by the stub engine. The second comes ten seconds too late, in which the last frame
of the first is repeated; who receives the show must neither lose a frame nor go away."""

import concurrent.futures
import itertools
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import unittest

import gi
from peers import ffprobe

gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402

Gst.init(None)

FPS = 16
CLIP = 33  # frames
DELAY = 14  # seconds that the second clip takes, of which the first fills two, and starting up some
BLACK, FIRST, SECOND = 16, 60, 180  # luma before the first clip, of the first and of the second

SOURCE = f"wansrc name=src is-live=true num-clips=2 num-frames={CLIP}"
CAPS = f"video/x-raw,format=I420,width=64,height=48,framerate={FPS}/1"
H264 = "x264enc tune=zerolatency key-int-max=32 ! h264parse"
SILENCE = "audiotestsrc name=audio is-live=true wave=silence ! audio/x-raw,rate=48000,channels=2"


def frames_of(file, *options):
    """PTS and mean luma of each frame of a file, playlist or picture sequence."""
    entries = "frame=pts_time:frame_tags=lavfi.signalstats.YAVG"
    lines = ffprobe("-f", "lavfi", "-show_entries", entries, *options, f"movie={file},signalstats")
    return [(float(pts), float(luma)) for pts, luma in lines]


def times_of(file, stream):
    """PTS of each packet of "v" or "a", in order of presentation."""
    lines = ffprobe("-select_streams", stream, "-show_entries", "packet=pts_time", file)
    return sorted(float(line[0]) for line in lines)


def clips_in(lumas):
    """Which clips are seen, one after the other, and for how many frames; black is left out."""
    shown = (min((BLACK, FIRST, SECOND), key=lambda clip: abs(luma - clip)) for luma in lumas)
    return [(clip, len(list(run))) for clip, run in itertools.groupby(shown) if clip != BLACK]


def rtp_stamp(buffer):
    return int.from_bytes(buffer.extract_dup(4, 4), "big")


def rtp_seconds(stamps, rate=90000):
    """The times of frames from the stamps of their packets. A receiver's PTS are none: arrival has a part in them."""
    frames = list(dict.fromkeys(stamps))
    return [(stamp - frames[0]) % 2**32 / rate for stamp in frames]


class Pipeline:
    def __init__(self, launch):
        self.element = Gst.parse_launch(f"pipeline.( {launch} )")

    def __getitem__(self, name):
        return self.element.get_by_name(name)

    def watch(self, pad, value=lambda buffer: None):
        """A list that gets PTS, running time and `value` of each buffer that passes the pad, times in seconds."""
        passed = []

        def note(_, info):
            buffer = info.get_buffer()
            now = self.element.get_current_running_time()
            passed.append((buffer.pts / Gst.SECOND, now / Gst.SECOND, value(buffer)))
            return Gst.PadProbeReturn.OK

        pad.add_probe(Gst.PadProbeType.BUFFER, note)
        return passed

    def play(self):
        self.element.set_state(Gst.State.PLAYING)

    def wait_for(self, types, seconds=90):
        """The first message of one of these types, or none; an error raises."""
        message = self.element.get_bus().timed_pop_filtered(seconds * Gst.SECOND, types | Gst.MessageType.ERROR)
        if message and message.type == Gst.MessageType.ERROR:
            raise RuntimeError("%s (%s)" % message.parse_error())
        return message

    def wait_eos(self):
        if not self.wait_for(Gst.MessageType.EOS):
            raise TimeoutError("no EOS")

    def stop(self):
        self.element.set_state(Gst.State.NULL)


class Show(Pipeline):
    """The show, which the rest of the launch line sends. Audio in there comes from an element of that name.

    Its model is its own: shows that run side by side would wait for each other's late clip."""

    models = itertools.count()

    def __init__(self, rest, properties=""):
        super().__init__(f"{SOURCE} model=show-{next(self.models)} {properties} ! {CAPS} ! {rest}")
        self.stalls = "stall" in properties
        self.over = threading.Event()
        pad = self["src"].get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, self.note_end)
        self.video = self.watch(pad)
        self.audio = self.watch(self["audio"].get_static_pad("src")) if self["audio"] else []
        self.enqueue("in time", FIRST)
        self.enqueue(f"clip={1000 * DELAY:.0f}", SECOND)

    def enqueue(self, prompt, seed):
        settings = Gst.Structure.new_empty("settings")
        settings.set_value("seed", seed)
        if not self["src"].emit("enqueue", prompt, settings):
            raise RuntimeError(f"{prompt} was not taken")

    def note_end(self, _, info):
        if info.get_event().type == Gst.EventType.EOS:
            if audio := self["audio"]:  # whose thread may be waiting for this one, in the muxer
                audio.call_async(lambda audio: audio.send_event(Gst.Event.new_eos()))
            self.over.set()
        return Gst.PadProbeReturn.OK

    def stats(self, name):
        return self["src"].get_property("stats").get_value(name)


class TestCase(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="wan-servers-")
        self.addCleanup(shutil.rmtree, self.directory)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, *command, **options):
        """Starts a process that ends with the test, at the latest."""
        process = subprocess.Popen(command, **options)

        def end():
            process.kill()
            process.communicate()

        self.addCleanup(end)
        return process

    def play(self, pipeline):
        self.addCleanup(pipeline.stop)
        pipeline.play()
        return pipeline

    def run_show(self, rest, properties="", linger=0):
        """Sends the show to its end, and keeps the sender for `linger` seconds more."""
        show = self.play(Show(rest, properties))
        show.wait_eos()
        time.sleep(linger)
        self.check_sent(show)
        show.stop()
        return show

    def check_sent(self, show):
        """The second clip was ten seconds late, and every frame left at its time nevertheless."""
        times, passed, _ = zip(*show.video)
        self.assertGreater(times[-CLIP] - times[0], CLIP / FPS + 10)
        self.assertEqual(len(times), 2 * CLIP + show.stats("repeated"))
        self.assertLess(abs(statistics.median(now - pts for pts, now in zip(times, passed))), 1 / FPS)
        steps = [(after - before) * FPS for before, after in itertools.pairwise(times)]
        for step in steps:
            self.assertAlmostEqual(step, round(step), places=5)
        if not show.stalls:
            missing = sum(round(step) - 1 for step in steps) - show.stats("gaps")
            self.assertIn(missing, range(show.stats("dropped") + 1))

    def check_received(self, show, frames, tolerance):
        """Every frame came, at its time, and shows what it should."""
        times, lumas = zip(*frames)
        self.check_times(show.video, times, tolerance)
        self.check_show(lumas)

    def check_show(self, lumas):
        (first, _), (second, length) = clips_in(lumas)
        self.assertEqual((first, second, length), (FIRST, SECOND, CLIP))

    def check_times(self, sent, received, tolerance):
        self.assertEqual(len(received), len(sent))
        offsets = [after - before for after, (before, *_) in zip(received, sent)]
        spread = max(offsets) - min(offsets)
        span = received[-1] - received[0]
        print(f"{self.id()}: {len(received)} frames, {span:.3f} s, times off by {1000 * spread:.3f} ms")
        self.assertLess(spread, tolerance)

    def check_sync(self, show, file, tolerance=0.05):
        """Audio and video are as far apart in the file as they were sent, at both ends."""
        video, audio = times_of(file, "v"), times_of(file, "a")
        for end in (0, -1):
            apart = video[end] - audio[end]
            self.assertAlmostEqual(apart, show.video[end][0] - show.audio[end][0], delta=tolerance)


class SideBySide(unittest.TestSuite):
    """Runs what is in it at the same time, since nearly all that a test here does is wait."""

    def run(self, result, debug=False):
        def alone(test):
            own = unittest.TestResult()
            test(own)
            return own

        with concurrent.futures.ThreadPoolExecutor(max(1, self.countTestCases())) as pool:
            for own in pool.map(alone, self):
                result.testsRun += own.testsRun
                result.failures += own.failures
                result.errors += own.errors
        return result


def main():
    loader = unittest.TestLoader()
    loader.suiteClass = SideBySide
    unittest.main(testLoader=loader)
