# RTMP: nginx takes the stream and records it.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import peers
import support

TOLERANCE = 0.002  # FLV counts milliseconds
# flvmux moves what comes later than its latency behind what it has written already.
MOVED = 1 / support.FPS
AAC = f"{support.SILENCE} ! voaacenc ! mux."


class Rtmp(support.TestCase):
    def setUp(self):
        super().setUp()
        self.port = peers.free_port()
        self.nginx = self.start(*peers.nginx_rtmp(self.directory, self.port, record=True))
        peers.until(lambda: peers.listens(self.port))

    def record(self, audio="", properties=""):
        """What was sent, and nginx' recording of it."""
        show = self.run_show(
            f"{support.H264} ! flvmux name=mux streamable=true latency=300000000 ! "
            f"rtmp2sink location=rtmp://127.0.0.1:{self.port}/live/wan {audio}", properties)
        self.nginx.terminate()  # which closes the recording
        self.nginx.wait()
        return show, self.path("wan.flv")

    def test_video(self):
        show, recording = self.record()
        self.check_received(show, support.frames_of(recording), TOLERANCE)

    def test_audio(self):
        show, recording = self.record(AAC)
        self.check_received(show, support.frames_of(recording), MOVED)
        self.check_sync(show, recording)

    def test_gap(self):
        """Audio goes on where video is left out."""
        show, recording = self.record(AAC, "underrun=gap")
        self.check_received(show, support.frames_of(recording), MOVED)
        self.check_sync(show, recording)

    def test_stall(self):
        """Nothing at all is sent where video is missing."""
        show, recording = self.record(properties="underrun=stall")
        self.check_received(show, support.frames_of(recording), TOLERANCE)


if __name__ == "__main__":
    support.main()
