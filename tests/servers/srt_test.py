# SRT: srt-live-transmit takes the stream, as listener and as caller, and writes it to a file.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import socket

import peers
import support

TOLERANCE = 0.001
AAC = f"{support.SILENCE} ! voaacenc ! aacparse ! mux."
LINGER = 1  # srtsink drops on its way to NULL what its peer has not taken yet, the last 125 ms


class Srt(support.TestCase):
    def receive(self, mode, audio="", properties=""):
        """What was sent, and what srt-live-transmit got."""
        url = f"srt://127.0.0.1:{peers.free_port(socket.SOCK_DGRAM)}?mode="
        recording = self.path("wan.ts")
        with open(recording, "wb") as file:
            receiver = self.start("srt-live-transmit", "-q", "-a:no", url + mode, "file://con", stdout=file)
        mine = "caller" if mode == "listener" else "listener"
        show = self.run_show(
            f"{support.H264} config-interval=-1 ! mpegtsmux name=mux alignment=7 ! "
            f'srtsink uri="{url}{mine}" {audio}', properties, LINGER)
        self.assertEqual(receiver.wait(60), 0)
        return show, recording

    def test_listener(self):
        show, recording = self.receive("listener")
        self.check_received(show, support.frames_of(recording), TOLERANCE)

    def test_caller(self):
        show, recording = self.receive("caller")
        self.check_received(show, support.frames_of(recording), TOLERANCE)

    def test_audio(self):
        show, recording = self.receive("listener", AAC)
        self.check_received(show, support.frames_of(recording), TOLERANCE)
        self.check_sync(show, recording)

    def test_gap(self):
        """Audio goes on where video is left out."""
        show, recording = self.receive("listener", AAC, "underrun=gap")
        self.check_received(show, support.frames_of(recording), TOLERANCE)
        self.check_sync(show, recording)

    def test_stall(self):
        """Nothing at all is sent where video is missing."""
        show, recording = self.receive("listener", properties="underrun=stall")
        self.check_received(show, support.frames_of(recording), TOLERANCE)


if __name__ == "__main__":
    support.main()
