# HLS: a web server hands out playlist and segments while they are made, to GStreamer and to Chromium's own player.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import functools
import http.server
import os
import threading

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import peers
import support

TOLERANCE = 0.001
AAC = f"{support.SILENCE} ! voaacenc ! aacparse ! hls.audio"
# A player joins near the live end, and sees at least the ten seconds without a new frame and the clip after them.
ENOUGH = 10 * support.FPS + support.CLIP

# Chromium's player gives up if the playlist has nothing new for it just when it begins to play, as is likely as long as
# the playlist is shorter than the ten seconds that it buffers. So the page tries again.
PAGE = """
<video autoplay muted src="live.m3u8"></video>
<script>
  const errors = [];
  const video = document.querySelector("video");
  video.onerror = () => {
    errors.push({time: video.currentTime, message: video.error.message});
    setTimeout(() => video.load(), 500);
  };
</script>
"""
# How far the player is, and the luma in the middle of its picture.
STATE = """
const canvas = new OffscreenCanvas(1, 1).getContext("2d");
canvas.drawImage(video, video.videoWidth / 2, video.videoHeight / 2, 1, 1, 0, 0, 1, 1);
const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
return {ended: video.ended, errors: errors.filter(({time}) => time > 0),
        luma: 16 + 0.257 * red + 0.504 * green + 0.098 * blue,
        frames: video.getVideoPlaybackQuality().totalVideoFrames};
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class Hls(support.TestCase):
    def setUp(self):
        super().setUp()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=self.directory))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_port}/"

    def browser(self):
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in ("headless=new", "disable-gpu", "disable-dev-shm-usage", "no-sandbox"):  # which root has not
            options.add_argument(f"--{argument}")
        # All that it stores goes there.
        environment = os.environ | {"HOME": self.directory, "TMPDIR": self.directory}
        browser = webdriver.Chrome(service=Service("/usr/bin/chromedriver", env=environment), options=options)
        self.addCleanup(browser.quit)
        return browser

    def stream(self, audio=""):
        """The show under way, once there is a segment to look at."""
        show = self.play(support.Show(
            f"{support.H264} ! hls.video hlssink2 name=hls target-duration=2 playlist-length=0 max-files=0 "
            f"location={self.path('%05d.ts')} playlist-location={self.path('live.m3u8')} {audio}"))
        peers.until(lambda: os.path.exists(self.path("live.m3u8")))
        return show

    def finish(self, show):
        """Waits until all is sent, and looks at what the playlist lists then."""
        show.wait_eos()
        self.check_sent(show)
        show.stop()
        self.check_received(show, support.frames_of(self.path("live.m3u8")), TOLERANCE)

    def test_gstreamer(self):
        show = self.stream()
        player = support.Pipeline(f"uridecodebin uri={self.url}live.m3u8 ! fakesink name=sink sync=true")
        watched = player.watch(player["sink"].get_static_pad("sink"))
        self.play(player)
        self.finish(show)
        player.wait_eos()
        self.assertGreater(len(watched), ENOUGH)
        self.check_times(show.video[-len(watched):], [pts for pts, *_ in watched], TOLERANCE)

    def test_chromium(self):
        with open(self.path("index.html"), "w") as file:
            file.write(PAGE)
        browser = self.browser()
        show = self.stream(AAC)
        browser.get(self.url)
        seen = []

        def ended():
            seen.append(browser.execute_script(STATE))
            self.assertEqual(seen[-1]["errors"], [])
            return seen[-1]["ended"]

        peers.until(ended)
        print(f"{self.id()}: {seen[-1]['frames']} frames")
        self.assertGreater(seen[-1]["frames"], ENOUGH)
        shown = support.clips_in(state["luma"] for state in seen if state["frames"])
        self.assertEqual([clip for clip, _ in shown], [support.FIRST, support.SECOND])
        self.finish(show)


if __name__ == "__main__":
    support.main()
