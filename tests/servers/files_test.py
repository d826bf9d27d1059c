# Files: containers and picture sequences by GStreamer, moving pictures by ffmpeg behind it.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import os
import shutil
import struct
import subprocess

import peers
import support

TOLERANCE = 0.002
CENTISECOND = 0.01  # what GIF counts
OPUS = f"{support.SILENCE} ! opusenc ! mux."


def webp_durations(file):
    """Seconds of each picture of an animated WebP, which no decoder in Debian 12 tells."""
    with open(file, "rb") as opened:
        data = opened.read()
    at = 12  # behind "RIFF", the size and "WEBP"
    while at < len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        if kind == b"ANMF":
            yield int.from_bytes(data[at + 20 : at + 23], "little") / 1000
        at += 8 + size + size % 2


class Files(support.TestCase):
    def store(self, rest, name):
        """What was sent, and the file that it went to."""
        return self.run_show(rest.format(file=self.path(name))), self.path(name)

    def convert(self, name, *options):
        """The same by way of an ffmpeg that reads the video from a pipe."""
        ffmpeg = self.start("ffmpeg", "-v", "error", "-i", "-", *options, self.path(name), stdin=subprocess.PIPE)
        show = self.run_show(f"y4menc ! fdsink fd={ffmpeg.stdin.fileno()}")
        ffmpeg.stdin.close()
        self.assertEqual(ffmpeg.wait(), 0)
        return show, self.path(name)

    def check_converted(self, show, file, tolerance):
        """Every frame came. The pipe has no times, but a rate."""
        times, lumas = zip(*support.frames_of(file))
        self.check_show(lumas)
        self.check_times([(frame / support.FPS,) for frame in range(len(show.video))], times, tolerance)

    def check_pictures(self, show, pattern):
        self.assertEqual(len(os.listdir(self.directory)), len(show.video))
        self.check_show([luma for _, luma in support.frames_of(pattern)])

    def test_fragmented_mp4(self):
        """It can be read while it is being written."""
        file, part = self.path("wan.mp4"), self.path("part.mp4")
        show = self.play(support.Show(
            f"{support.H264} ! mp4mux fragment-duration=1000 ! filesink buffer-mode=unbuffered location={file}"))
        peers.until(lambda: len(show.video) >= 5 * support.FPS)
        shutil.copy(file, part)
        complete = support.frames_of(part, "-v", "fatal")  # the last fragment need not be
        self.assertGreater(len(complete), 3 * support.FPS)
        show.wait_eos()
        self.check_sent(show)
        self.check_received(show, support.frames_of(file), TOLERANCE)

    def test_matroska(self):
        show, file = self.store(f"{support.H264} ! matroskamux name=mux ! filesink location={{file}} {OPUS}", "wan.mkv")
        self.check_received(show, support.frames_of(file), TOLERANCE)
        self.check_sync(show, file)

    def test_matroska_stream(self):
        show, file = self.store(f"{support.H264} ! matroskamux streamable=true ! filesink location={{file}}", "wan.mkv")
        self.check_received(show, support.frames_of(file), TOLERANCE)

    def test_png(self):
        show, files = self.store("videoconvert ! pngenc ! multifilesink location={file}", "%04d.png")
        self.check_pictures(show, files)

    def test_webp(self):
        show, files = self.store("webpenc ! multifilesink location={file}", "%04d.webp")
        self.check_pictures(show, files)

    def test_animated_webp(self):
        """Pictures that do not change are one, for longer."""
        show, file = self.convert("wan.webp", "-c:v", "libwebp_anim")
        durations = list(webp_durations(file))
        self.assertAlmostEqual(sum(durations), len(show.video) / support.FPS, delta=TOLERANCE)
        self.assertAlmostEqual(durations[-1], support.CLIP / support.FPS, delta=TOLERANCE)

    def test_animated_png(self):
        show, file = self.convert("wan.apng")
        self.check_converted(show, file, TOLERANCE)

    def test_gif(self):
        show, file = self.convert("wan.gif")
        self.check_converted(show, file, CENTISECOND)


if __name__ == "__main__":
    support.main()
