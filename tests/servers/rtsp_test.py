# RTSP: examples/rtsp-server, watched by ffmpeg and by GStreamer at the same time.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import contextlib
import itertools
import os
import random
import re
import socket
import struct
import subprocess

import support
from peers import until
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


class HostileClients(support.TestCase):
    """They take nothing from the others, and leave nothing. A warning of GLib's ends the server."""

    def setUp(self):
        super().setUp()
        self.server = self.start(os.environ["WAN_TEST_RTSP_SERVER"], "--port", "0", stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, "G_DEBUG": "fatal-warnings"})
        self.url = self.server.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1].split("/")[0])

    def tearDown(self):
        until(lambda: self.ask(self.connect(), "OPTIONS").startswith(b"RTSP/1.0 200"))
        self.assertIsNone(self.server.poll())
        super().tearDown()

    def connect(self):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.addCleanup(connection.close)
        return connection

    def ask(self, connection, method):
        """Its answer; empty if the connection is cut."""
        with contextlib.suppress(OSError):
            connection.sendall(f"{method} {self.url} RTSP/1.0\r\nCSeq: 1\r\n\r\n".encode())
            return connection.recv(4096)
        return b""

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.server.pid}/fd"))

    def test_connections_that_ask_for_nothing_give_way(self):
        before = self.descriptors()
        connections = [self.connect() for _ in range(200)]
        until(lambda: b"RTSP/1.0 200" in self.ask(self.connect(), "DESCRIBE"))
        self.assertLess(self.descriptors(), before + 100)
        for connection in connections:
            connection.close()
        until(lambda: self.descriptors() < before + 20)

    def test_requests_without_an_end_are_cut(self):
        for head in (f"DESCRIBE {self.url} RTSP/1.0\r\nContent-Length: 4000000000\r\n\r\n", f"OPTIONS {self.url} RTSP/1.0\r\n"):
            with self.subTest(head), self.assertRaises(OSError):
                connection = self.connect()
                connection.settimeout(3)  # or it stands still, since nobody reads
                connection.sendall(head.encode())
                for _ in range(20000):
                    connection.sendall(b"X-Header: " + b"x" * 1000 + b"\r\n")

    def answer(self, connection):
        """The next one; the server may send pictures before it ("$", channel and length: RFC 2326, 10.12)."""
        with connection.makefile("rb") as stream:
            while stream.peek(1)[:1] == b"$":
                stream.read(struct.unpack(">xxH", stream.read(4))[0])
            return stream.read1(4096)

    def begin_to_watch(self, phases=4, receive_buffer=None):
        """A connection that has come as far as that: OPTIONS, DESCRIBE, SETUP, PLAY."""
        connection = socket.socket()
        self.addCleanup(connection.close)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", self.port))
        session = ""
        for number, (method, path, header) in enumerate((
                ("OPTIONS", "", ""), ("DESCRIBE", "", ""),
                ("SETUP", "/stream=0", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"), ("PLAY", "", ""))[:phases]):
            connection.sendall(f"{method} {self.url}{path} RTSP/1.0\r\nCSeq: {number}\r\n{header}{session}\r\n".encode())
            answer = self.answer(connection)
            self.assertTrue(answer.startswith(b"RTSP/1.0 200"), answer)
            found = re.search(rb"Session: ([^;\r]+)", answer)
            session = f"Session: {found[1].decode()}\r\n" if found else session
        return connection

    def test_viewers_who_are_killed_in_every_phase_leave_nothing(self):
        chance = random.Random(20261129)

        def storm(count):
            for _ in range(count):
                connection = self.begin_to_watch(phases=chance.randrange(5))
                if chance.random() < 0.5:  # with a reset
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                if chance.random() < 0.3:  # in the middle of a request
                    connection.sendall(b"TEARDOWN rtsp://")
                connection.close()

        def count():
            return self.descriptors(), len(os.listdir(f"/proc/{self.server.pid}/task"))

        watcher = self.begin_to_watch()  # so that the pipeline stays
        storm(10)  # libraries keep what they open once
        until(lambda: count()[0] < 60)
        before = count()
        storm(40)
        until(lambda: all(now <= then + 3 for now, then in zip(count(), before)))
        self.assertNotEqual(watcher.recv(4096), b"")

    def test_a_viewer_who_does_not_read_is_cut(self):
        before = self.descriptors()
        stalled, watcher = self.begin_to_watch(receive_buffer=1), self.begin_to_watch()

        def is_cut():
            watcher.recv(65536)
            try:
                stalled.send(b"\r\n", socket.MSG_DONTWAIT)
            except OSError:
                return True
        until(is_cut)
        watcher.close()
        until(lambda: self.descriptors() < before + 20)

    def test_garbage_is_no_request(self):
        chance = random.Random(20261128)
        before = self.descriptors()
        whole = f"SETUP {self.url}/stream=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".encode()
        for _ in range(200):
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 8)):
                data[chance.randrange(len(data))] = chance.randrange(256)
            with self.connect() as connection:
                connection.sendall(data[:chance.randrange(1, len(data))] + b"$\x00\xff\xff")
        until(lambda: self.descriptors() < before + 20)


if __name__ == "__main__":
    support.main()
