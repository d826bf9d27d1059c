# RTSP: examples/rtsp-server, watched by ffmpeg and by GStreamer at the same time.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import itertools
import os
import subprocess

import support
from support import Gst

FPS = 25  # the stub's own
SECONDS = support.DELAY + 2  # in this time the second clip comes, late by more than ten seconds
JOINING = 2  # until the next key frame
HOLE = 1
TOLERANCE = 0.001


class Rtsp(support.TestCase):
    def setUp(self):
        super().setUp()
        prompts = ("--prompt", "in time", "--prompt", f"clip={1000 * support.DELAY:.0f}")
        self.server = self.start(
            os.environ["WAN_TEST_RTSP_SERVER"], "--port", "0", *prompts, stdout=subprocess.PIPE, text=True)
        self.url = self.server.stdout.readline().strip()

    def check_steady(self, viewer, times):
        """The stream goes on. Few frames are left out, where the machine is busy, and none is put elsewhere."""
        gaps = [after - before for before, after in itertools.pairwise(times)]
        print(f"{self.id()}, {viewer}: {len(times)} frames, {times[-1] - times[0]:.3f} s, gaps up to {max(gaps):.3f} s")
        self.assertGreater(times[-1] - times[0], SECONDS - JOINING)
        self.assertLess(max(gaps), HOLE)
        for gap in gaps:
            self.assertAlmostEqual(gap * FPS, max(1, round(gap * FPS)), delta=TOLERANCE * FPS)

    def test_viewers(self):
        ffmpeg = self.start("ffmpeg", "-v", "error", "-rtsp_transport", "tcp", "-i", self.url, "-c", "copy",
                            "-t", str(SECONDS), self.path("wan.mkv"))
        player = self.play(support.Pipeline(
            f"rtspsrc location={self.url} protocols=tcp ! rtph264depay name=depay ! avdec_h264 ! fakesink sync=false"))
        packets = player.watch(player["depay"].get_static_pad("sink"), support.rtp_stamp)
        self.assertEqual(ffmpeg.wait(), 0)
        self.assertIsNone(player.wait_for(Gst.MessageType.EOS, 0))
        self.check_steady("GStreamer", support.rtp_seconds(stamp for *_, stamp in packets))
        # ffmpeg does not know the time of the first frame.
        self.check_steady("ffmpeg", support.times_of(self.path("wan.mkv"), "v")[1:])

        self.server.terminate()
        self.assertEqual(self.server.wait(), 0)


if __name__ == "__main__":
    support.main()
