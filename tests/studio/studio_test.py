#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The live studio, end to end: the program with the embedded model, headless Chromium, and a WebSocket that
misbehaves. studio_test.py LIVE_STUDIO [unittest's arguments]

Prints what it measures on the way. Each test leaves the studio with an empty queue and a blue picture.
"""
import base64
import contextlib
import ctypes
import itertools
import os
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from peers import ffprobe
from picture_model import PictureModel
from support import EndlessPictureModel, EndlessStudio, Page, Socket, Studio, encoded_picture, open_browser, wait_for

PROGRAM = None
BLUE, RED, GREEN = ("a white circle on a blue background", "a white star on a red background",
                    "a green star on a green background")


def say(text):
    print(f"measured: {text}", flush=True)


def answer_to(offer):
    """What a browser might answer, but for the connection's secrets."""
    return offer.replace("sendonly", "recvonly").replace("actpass", "active")


class Program(unittest.TestCase):
    """Without a browser."""

    def run_program(self, *options):
        return subprocess.run([PROGRAM, *options], capture_output=True, text=True, timeout=60)

    def test_wrong_options_end_it_with_a_message(self):
        for options, message in ((["--width", "100"], "multiple of 16"), (["--port", "70000"], "--port"),
                                 (["--address", "localhost"], "IP address"), (["--steps", "-1"], "--steps"),
                                 (["--stun", "example.org"], "stun://"), (["--recordings", "/none"], "--recordings"),
                                 (["--recording-limit", "0"], "--recording-limit"), (["--what"], "--what"), (["what"], "what"),
                                 (["--model", "/none", "--port", "0"], "/none")):
            with self.subTest(options):
                result = self.run_program(*options)
                self.assertEqual(result.returncode, 1)
                self.assertRegex(result.stderr, "^error: .*" + re.escape(message))

    def test_a_port_in_use_is_told(self):
        studio = Studio(PROGRAM)
        self.addCleanup(studio.stop)
        result = self.run_program("--port", str(studio.port))
        self.assertEqual(result.returncode, 1)
        self.assertIn(f"Cannot listen on 127.0.0.1, port {studio.port}", result.stderr)

    def test_signals_end_it_cleanly(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(number):
                studio = Studio(PROGRAM)
                self.addCleanup(studio.stop)
                with studio.socket() as page:
                    page.send(type="watch", codecs=["vp8"])
                    page.read("offer")
                    studio.process.send_signal(number)
                    self.assertEqual(page.close_code(), 1001)  # going away
                self.assertEqual(studio.stop(), 0)

    def test_other_addresses_are_warned_of(self):
        process = subprocess.Popen([PROGRAM, "--address", "0.0.0.0", "--port", "0"], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        self.assertIn("http://0.0.0.0:", process.stdout.readline())
        self.assertIn("whoever reaches this address", process.stderr.readline())
        process.terminate()
        process.communicate()
        self.assertEqual(process.returncode, 0)


    def test_elsewhere_steering_takes_a_link(self):
        process = subprocess.Popen([PROGRAM, "--address", "0.0.0.0", "--port", "0", "--width", "64", "--height", "48"],
                                   stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.addCleanup(lambda: (process.kill(), process.communicate()))
        process.stdout.readline()
        port, token = re.search(r":(\d+)/#([a-z2-7]{24})$", process.stdout.readline().strip()).groups()
        for given, steers in (("", False), ("x" * 24, False), (token[:-1], False), (token, True)):
            with self.subTest(given), Socket(int(port)) as page:
                self.assertFalse(page.read("hello")["steers"])
                if given:
                    page.send(type="steer", token=given)
                    self.assertEqual(page.read("error", "done")["type"], "done" if steers else "error")
                for message in ({"type": "enqueue", "prompt": RED}, {"type": "set", "steps": 2}, {"type": "skip"}, {"type": "clear"},
                                {"type": "cut", "prompt": RED}):
                    page.send(**message)
                    answer = page.read("error", "done")
                    self.assertEqual(answer["type"], "done" if steers else "error", answer)
                page.send_picture(encoded_picture(32, 32))
                self.assertEqual(page.read("error", "done")["type"], "done" if steers else "error")
                page.send(type="watch", codecs=["vp8"])
                self.assertIn("sdp", page.read("offer"))


class Protocol(unittest.TestCase):
    """What a page may send. Code that is not held to what it promises, of which GLib warns, ends the program."""

    @classmethod
    def setUpClass(cls):
        cls.studio = Studio(PROGRAM, G_DEBUG="fatal-criticals")
        cls.addClassCleanup(cls.studio.stop)

    def tearDown(self):
        self.assertTrue(self.studio.is_running())

    def test_foreign_pages_are_refused(self):
        own = f"127.0.0.1:{self.studio.port}"
        for origin in ("http://example.org", f"https://{own}", "http://127.0.0.1:1", "null", ""):
            with self.subTest(origin), self.studio.socket(origin=origin) as page:
                self.assertEqual(page.status, 403)
        # A foreign name that resolves to here.
        with self.studio.socket(host=f"example.org:{self.studio.port}") as page:
            self.assertEqual(page.status, 403)
        with self.studio.socket(host=f"localhost:{self.studio.port}") as page:
            self.assertEqual(page.status, 101)

    def test_foreign_names_get_no_page(self):
        own = f"127.0.0.1:{self.studio.port}"
        for path in ("/", "/studio.js", "/picture/1", "/nothing"):
            for host in ("example.org", f"{own}.example.org", f"example.org@{own}", f"{own}/", f"{own}?", f"{own}#", "localhost.example.org",
                         "127.0.0.1.example.org", "[::1", "", "0x7f.1.example.org", "xn--localhost"):
                with self.subTest(path=path, host=host):
                    status, _, body = self.studio.get(path, host or " ")
                    self.assertIn(status, (400, 403))
                    self.assertEqual(body, b"")
        for host in (own, f"localhost:{self.studio.port}", "[::1]"):
            self.assertEqual(self.studio.get("/", host)[0], 200)
        # Two of a kind are none of them.
        for first, second in (("example.org", own), (own, "example.org")):
            with contextlib.closing(self.studio.connect()) as connection:
                connection.sendall(f"GET /socket HTTP/1.1\r\nHost: {own}\r\nOrigin: http://{first}\r\nOrigin: http://{second}\r\n"
                                   "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
                self.assertEqual(connection.recv(12), b"HTTP/1.1 403")

    def test_wrong_messages_are_answered(self):
        with self.studio.socket() as page:
            for text in ("", "x", "{", "5", "null", "[]", "{}", '{"type": 5}', '{"type": "x"}', '{"type": "\\ud800"}',
                         "[" * 30000, '{"a":' * 5000, "x" * 500000,
                         "/**/{}", '/*"*/' + "[" * 9000, '{"type": "skip"}//', '{"type": "skip",}', "{'type': 'skip'}", '{type: "skip"}',
                         '{"type": "skip"} {}', '{"type": "skip\\u0000"}', '{"type": "\\x41"}',
                         '{"type": "enqueue"}', '{"type": "enqueue", "prompt": ""}',
                         '{"type": "enqueue", "prompt": ["a"]}', '{"type": "enqueue", "prompt": "%s"}' % ("a" * 3000),
                         '{"type": "set"}', '{"type": "set", "seed": "1"}', '{"type": "set", "seed": 1.5}',
                         '{"type": "set", "seed": -1}', '{"type": "set", "seed": 99999999999999999999}',
                         '{"type": "set", "steps": 4294967297}', '{"type": "set", "guidance": 1e999}',
                         '{"type": "set", "guidance": {}}', '{"type": "set", "prompt": 7}',
                         '{"type": "cut"}', '{"type": "cut", "prompt": ""}', '{"type": "cut", "prompt": "a", "picture": true}',
                         '{"type": "again"}', '{"type": "again", "scene": 0}', '{"type": "again", "scene": 9007199254740991}',
                         '{"type": "record"}', '{"type": "record", "on": true}', '{"type": "record", "on": 1}',
                         '{"type": "answer", "sdp": "x"}', '{"type": "candidate", "candidate": "x"}',
                         '{"type": "watch"}', '{"type": "watch", "codecs": [1]}', '{"type": "watch", "codecs": ["av1"]}'):
                with self.subTest(text[:60]):
                    page.send_text(text)
                    self.assertEqual(page.read("error", "done")["type"], "error")

    def test_wrong_frames_end_the_connection(self):
        for opcode, payload, code in ((1, b"\xff\xfe", 1007), (3, b"reserved", 1002)):
            with self.subTest(code), self.studio.socket() as page:
                page.send_frame(opcode, payload)
                self.assertEqual(page.close_code(), code)
        with self.studio.socket() as page, self.assertRaises(OSError):  # more than it reads
            for _ in range(20):
                page.send_frame(1, b"a" * 2000000)
                time.sleep(0.1)

    def test_wrong_pictures_are_answered(self):
        jpeg = encoded_picture(64, 48)
        scan = jpeg[jpeg.index(b"\xff\xda"):-2]
        with self.studio.socket() as page:
            for data, message in ((b"", "JPEG"), (b"binary", "JPEG"), (b"\xff\xd8\xff", "JPEG"), (jpeg[:300], "JPEG"),
                                  (encoded_picture(64, 48, "png"), "JPEG"), (jpeg[:-2] + 8 * scan + b"\xff\xd9", "baseline"),
                                  (encoded_picture(2064, 16), "2048x2048"), (encoded_picture(16, 2064), "2048x2048"),
                                  (jpeg + bytes(600000), "512 KiB")):
                with self.subTest(data[:30]):
                    page.send_picture(data)
                    answer = page.read("error", "done")
                    self.assertEqual((answer["type"], answer.get("request")), ("error", "picture"))
                    self.assertIn(message, answer["message"])
            page.send(type="enqueue", prompt=BLUE, picture=True)
            self.assertEqual(page.read("error", "done")["message"], "There is no picture for the clip.")
            page.send(type="enqueue", prompt=BLUE, picture=1)
            self.assertEqual(page.read("error", "done")["message"], '"picture" must be true or false.')

    def test_garbled_pictures_do_no_harm(self):
        chance = random.Random(20261128)
        jpeg = encoded_picture(160, 96)
        with self.studio.socket() as page:
            for _ in range(40):
                data = bytearray(jpeg)
                for _ in range(chance.randrange(1, 12)):
                    data[chance.randrange(3, len(data))] = chance.randrange(256)
                page.send_picture(bytes(data[:chance.randrange(300, len(data) + 1)] if chance.random() < 0.3 else data))
                page.read("error", "done")

    def test_a_model_that_takes_no_picture_says_so(self):
        with self.studio.socket() as page:
            page.send_picture(encoded_picture(64, 48))
            self.assertEqual(page.read("error", "done"), {"type": "done", "request": "picture"})
            page.send(type="enqueue", prompt=BLUE, picture=True)
            self.assertIn("takes no image", page.read("error", "done")["message"])
            self.assertEqual(page.read("state")["queue"], [])

    def test_a_setting_that_is_wrong_leaves_the_others_alone(self):
        with self.studio.socket() as page:
            page.send(type="set", steps=7, guidance=-1)
            self.assertIn("guidance", page.read("error", "done")["message"])
            self.assertEqual(page.read("state")["settings"]["steps"], 4)
            page.send(type="set", steps=5, guidance=2.5)
            self.assertEqual(page.read("error", "done"), {"type": "done", "request": "set"})
            settings = page.read("state")["settings"]
            self.assertEqual((settings["steps"], settings["guidance"]), (5, 2.5))
            page.send(type="set", steps=4, guidance=None)
            self.assertIsNone((page.read("done") and page.read("state"))["settings"]["guidance"])

    def test_the_queue_has_an_end(self):
        with self.studio.socket() as page:
            for _ in range(40):
                page.send(type="enqueue", prompt=BLUE)
            replies = [page.read("error", "done") for _ in range(40)]
            self.assertEqual(replies[0]["type"], "done")
            self.assertEqual(replies[-1], {"type": "error", "message": "The queue is full."})
            page.send(type="clear")
            self.assertEqual(page.read("done")["request"], "clear")
            self.assertEqual(page.read("state")["queue"], [])

    def test_wrong_answers_are_told(self):
        def drop(key):
            return lambda answer: re.sub(f"a={key}:.*\r\n", "", answer)

        with self.studio.socket() as page:
            for change in (drop("ice-ufrag"), drop("ice-pwd"), drop("fingerprint"), drop("mid"), drop("setup"),
                           lambda answer: answer.replace("m=video", "m=audio"), lambda answer: "v=0\r\n",
                           lambda answer: answer + answer[answer.index("m="):], lambda answer: "\x01\x02"):
                page.send(type="watch", codecs=["vp8"])
                answer = change(answer_to(page.read("offer")["sdp"]))
                with self.subTest(answer[-300:]):
                    page.send(type="answer", sdp=answer)
                    self.assertIn("answer", page.read("error")["message"])

    def test_garbled_answers_and_candidates_do_no_harm(self):
        chance = random.Random(20261124)
        candidates = ("candidate:1 1 UDP 2015363327 127.0.0.1 9 typ host", "candidate:", "candidate:a b c d e f",
                      "candidate:1 1 TCP 1 127.0.0.1 9 typ host tcptype active", "candidate:1 1 UDP 1 x.local 9 typ host",
                      "candidate:1 256 UDP 99999999999999999999 300.1.1.1 -1 typ host", "candidate:\n", "a" * 600)
        numbers = ("0", "-1", "1", "65536", str(2**32), str(2**64))

        def garble(lines):
            i = chance.randrange(len(lines))
            lines[i:i + 1] = chance.choice([
                lambda line: [], lambda line: [line, line], lambda line: [line, chance.choice(lines)],
                lambda line: [line[:chance.randrange(len(line) + 1)]],
                lambda line: [re.sub(r"\d+", lambda _: chance.choice(numbers), line)],
                lambda line: [line[:2] + "".join(chr(chance.randrange(32, 127)) for _ in range(20))],
            ])(lines[i])
            return lines or [""]

        with self.studio.socket() as page:
            for _ in range(40):
                page.send(type="watch", codecs=[chance.choice(("vp8", "h264"))])
                lines = answer_to(page.read("offer")["sdp"]).split("\r\n")
                for _ in range(chance.randrange(1, 6)):
                    lines = garble(lines)
                page.send(type="answer", sdp="\r\n".join(lines))
                for candidate in chance.sample(candidates, 3):
                    page.send(type="candidate", candidate=candidate)
            page.send(type="skip")
            self.assertEqual(page.read("done")["request"], "skip")

    def test_viewers_who_come_and_go_leave_nothing(self):
        def come_and_go():
            pages = [self.studio.socket() for _ in range(4)]
            for number, page in enumerate(pages):
                page.send(type="watch", codecs=["vp8", "h264"][number % 2:])
                page.send(type="answer", sdp=answer_to(page.read("offer")["sdp"]))
            for number, page in enumerate(pages):
                if number % 2:  # half of them say goodbye
                    page.send_frame(8, b"\x03\xe8")
                page.__exit__()

            with self.studio.socket() as page:
                wait_for("all viewers are gone", lambda: page.read("state")["viewers"] == 0)

        def count():  # without a page: one opened at each look would be counted, and those before it
            return self.studio.count("fd"), self.studio.count("task")

        come_and_go()  # libraries keep what they open once
        before = count()
        for _ in range(5):
            come_and_go()
        # Pools keep a thread or two more at times; what is left of a viewer would be there twenty times.
        wait_for(f"files and threads are as before, {before}",
                 lambda: all(now <= then + 4 for now, then in zip(count(), before)))

    def test_video_that_is_asked_for_again_and_again_leaves_nothing(self):
        with self.studio.socket() as page:
            def ask(count):
                for _ in range(count):
                    page.send(type="watch", codecs=["vp8"])
                    page.send(type="answer", sdp=answer_to(page.read("offer")["sdp"]))
                return self.studio.count("fd"), self.studio.count("task")

            before = ask(5)
            ask(35)
            wait_for(f"files and threads are as before, {before}", lambda: all(
                now <= then + 4 for now, then in zip((self.studio.count("fd"), self.studio.count("task")), before)))

    def test_a_viewer_who_does_not_answer_holds_up_nobody(self):
        pages = [self.studio.socket() for _ in range(6)]
        for number, page in enumerate(pages):
            page.send(type="watch", codecs=["vp8", "h264"][number % 2:])
            page.read("offer")
            self.assertEqual(page.read("state")["viewers"], number + 1)  # none of them was given up to go on
        before = page.read("state")["stats"]["frames-pushed"]
        wait_for("frames are pushed", lambda: page.read("state")["stats"]["frames-pushed"] > before + 32)
        for page in pages:
            page.__exit__()

    def test_a_page_that_fell_silent_is_given_up(self):
        # As one whose machine has lost its network: nothing comes from it, not even an answer to a ping.
        with self.studio.socket() as silent, self.studio.socket() as page:
            silent.send(type="watch", codecs=["vp8"])
            wait_for("it is counted", lambda: page.read("state")["viewers"] == 1)
            wait_for("it is given up", lambda: page.read("state")["viewers"] == 0)

    def test_there_is_an_end_to_viewers(self):
        pages = []
        try:
            while len(pages) < 40:
                pages.append(self.studio.socket())
            self.assertEqual(pages[-1].close_code(), 1008)
        finally:
            for page in pages:
                page.__exit__()

        def there_is_room():
            with self.studio.socket() as page:
                return page.read_frame()[0] == 1
        wait_for("there is room again", there_is_room)


class Storm(unittest.TestCase):
    """Clients that harm. A warning of GLib's ends the program."""

    @classmethod
    def setUpClass(cls):
        cls.studio = Studio(PROGRAM, "--num-frames", "9", descriptors=256, G_DEBUG="fatal-warnings")
        cls.addClassCleanup(cls.studio.stop)
        with cls.studio.socket() as page:
            wait_for("clips have been made", lambda: page.read("state")["stats"]["frames-pushed"] > 30)

    def setUp(self):
        def room():  # those who were before may not be quite gone
            self.page = self.studio.socket()
            self.addCleanup(self.page.__exit__)
            with contextlib.suppress(OSError, EOFError):
                return self.page.read_frame()[0] == 1
        wait_for("there is room", room)

    def tearDown(self):
        self.assertTrue(self.studio.is_running())
        self.answers_at_once()

    def answers_at_once(self):
        self.page.messages.clear()
        begin = time.monotonic()
        self.page.send(type="set", steps=4)
        self.page.read("done")
        self.assertLess(time.monotonic() - begin, 10)  # of a loaded machine; it takes milliseconds

    def connections(self):
        return self.studio.count("fd")

    def test_connections_that_ask_for_nothing_give_way(self):
        pages = [self.studio.connect() for _ in range(300)]
        for page in pages[::2]:  # half of them half a request
            with contextlib.suppress(OSError):
                page.sendall(b"GET / HTTP/1.1\r\nHost: ")
        self.assertLess(self.connections(), 200)
        wait_for("a page is served beside them", lambda: self.studio.get("/")[0] == 200)
        self.studio.socket().__exit__()
        refused = sum(page.recv(12, socket.MSG_DONTWAIT) == b"HTTP/1.1 503" for page in pages[-100:])
        self.assertEqual(refused, 100)
        wait_for("they are cut", lambda: self.studio.get("/")[0] == 200 and self.connections() < 60)
        for page in pages:
            page.close()

    def test_requests_without_an_end_are_cut(self):
        for head in (b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n",
                     b"POST /socket HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n80000000\r\n"):
            with self.subTest(head[:40]), contextlib.closing(self.studio.connect()) as connection:
                before = self.studio.memory()
                with self.assertRaises(OSError):
                    connection.sendall(head)
                    for _ in range(64):
                        connection.sendall(b"x" * 1024 * 1024)
                self.assertLess(self.studio.memory() - before, 32 * 1024 * 1024)

    def test_fragments_without_an_end_are_cut(self):
        before = self.studio.memory()
        with self.studio.socket() as page, self.assertRaises(OSError):
            page.send_frame(1, b'"', whole=False)
            for _ in range(64):
                page.send_frame(0, b"x" * 1000000, whole=False)
        self.assertLess(self.studio.memory() - before, 32 * 1024 * 1024)

    def test_nothing_is_inflated(self):
        with self.studio.socket(**{"Sec-WebSocket-Extensions": "permessage-deflate"}) as page:
            self.assertEqual(page.status, 101)
            self.assertNotIn("deflate", page.head)

    def test_messages_without_an_end_are_refused(self):
        with self.studio.socket() as page:
            with contextlib.suppress(OSError):
                for _ in range(20000):
                    page.send_text('{"type": "watch", "codecs": ["vp8"]}')
                    if page.socket in select.select([page.socket], [], [], 0)[0] and page.read_frame()[0] == 8:
                        break
            self.answers_at_once()
        wait_for("its video is gone", lambda: self.studio.count("task") < 40)

    def test_refused_messages_leave_no_memory(self):
        pages = [self.studio.socket() for _ in range(8)]

        def refuse(count):
            for _ in range(count):
                for page, text in zip(pages, 2 * ("[" * 30000, '{"a":' * 6000, "/**/" + "x" * 30000, '{"type": "%s"}' % ("x" * 30000))):
                    page.send_text(text)
                    page.read("error")
            return self.studio.memory()

        levels = [refuse(20) for _ in range(4)]
        # What is kept grows in each round by its 4.8 MB; the process itself grows now and then.
        self.assertLess(min(after - before for before, after in itertools.pairwise(levels)), 2 * 1024 * 1024)
        for page in pages:
            page.__exit__()

    def test_a_client_that_does_not_read_is_cut(self):
        with contextlib.closing(self.studio.connect(receive_buffer=4096)) as connection:
            connection.sendall(f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{self.studio.port}\r\nUpgrade: websocket\r\n"
                               f"Origin: http://127.0.0.1:{self.studio.port}\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
            before = self.studio.memory()
            ping, pong = (bytes([opcode, 0x80 | 125, 0, 0, 0, 0]) + bytes(125) for opcode in (0x89, 0x8a))
            connection.sendall(ping * 4000)

            def is_cut():
                try:
                    connection.send(pong, socket.MSG_DONTWAIT)
                except OSError:
                    return True
            wait_for("it is cut", is_cut)
            self.assertLess(self.studio.memory() - before, 32 * 1024 * 1024)

    def test_descriptors_do_not_run_out(self):
        pages = []
        self.addCleanup(lambda: [page.__exit__() for page in pages])
        with contextlib.suppress(OSError, EOFError, IndexError):
            for _ in range(31):
                pages.append(self.studio.socket())
        answers = []
        for page in pages:
            for _ in range(3):
                page.send(type="watch", codecs=["vp8"])
            answers.append(page.read("offer", "error"))
        self.assertEqual(answers[0]["type"], "offer")
        self.assertEqual(answers[-1].get("message"), "There is no room for another viewer.")

    def test_a_storm_leaves_nothing(self):
        chance = random.Random(20261129)
        jpeg = encoded_picture(640, 480)

        def come_and_go():
            page = self.studio.socket()
            for phase in range(chance.randrange(7)):
                if phase == 0:
                    page.send(type="watch", codecs=[chance.choice(("vp8", "h264"))])
                elif phase == 1:
                    offer = page.read("offer")["sdp"]
                elif phase == 2:
                    page.send(type="answer", sdp=answer_to(offer))
                elif phase == 3:
                    page.send(type="candidate", candidate="candidate:1 1 UDP 2015363327 127.0.0.1 9 typ host")
                elif phase == 4:
                    page.send_picture(jpeg)
                elif phase == 5:
                    page.send(type="cut", prompt=chance.choice((BLUE, RED, GREEN)))
                    page.send(type="again", scene=1)
            if chance.random() < 0.3:
                page.send_frame(8, b"\x03\xe8")
            if chance.random() < 0.3:  # in the middle of a frame
                page.socket.sendall(b"\x81\xfe\x10")
            if chance.random() < 0.5:  # with a reset
                page.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            page.__exit__()

        def stand_still():
            """Half a request, and a viewer who reads nothing."""
            half = self.studio.connect()
            half.sendall(b"GET /socket HTTP/1.1\r\nHost: ")
            page = self.studio.socket()
            page.send(type="watch", codecs=["vp8"])
            return [half, page.socket]

        def count():
            return self.studio.count("fd"), self.studio.count("task")

        def is_quiet():
            before = count()
            time.sleep(2)
            return count() == before

        def frames_pushed():
            with self.studio.socket() as page:
                return page.read("state")["stats"]["frames-pushed"]

        def storm():
            standing = []
            for number in range(50):
                if number % 10 == 0:
                    self.answers_at_once()
                    standing += stand_still()
                come_and_go()
            for connection in standing:
                connection.close()
            wait_for("it is quiet", is_quiet)

        storm()  # libraries keep what they open once
        before, memory, frames = count(), self.studio.memory(), frames_pushed()
        storm()
        self.assertGreater(frames_pushed(), frames)
        wait_for(f"files and threads are as before, {before}", lambda: all(now <= then + 1 for now, then in zip(count(), before)))
        self.assertLess(self.studio.memory() - memory, 32 * 1024 * 1024)  # it grows now and then by itself


class Looks:
    """Of each page: for eyes, fingers, keyboards and screen readers."""

    def test_it_fits_a_phone_in_light_and_dark(self):
        self.addCleanup(self.driver.execute_cdp_cmd, "Emulation.clearDeviceMetricsOverride", {})
        self.addCleanup(self.driver.execute_cdp_cmd, "Emulation.setEmulatedMedia", {"features": []})
        backgrounds = set()
        for width in (320, 360, 400):
            for scheme in ("light", "dark"):
                with self.subTest(width=width, scheme=scheme):
                    self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
                        "width": width, "height": 740, "deviceScaleFactor": 1, "mobile": True})
                    self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
                        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
                    self.assertEqual(self.page.run("return innerWidth"), width)
                    self.assertLessEqual(self.page.run("return document.documentElement.scrollWidth"), width)
                    backgrounds.add(self.page.find("video").find_element("xpath", "/html/body")
                                    .value_of_css_property("background-color"))
                    self.assertEqual(self.page.run(LOW_CONTRAST), [])
                    self.assertEqual(self.page.run(SMALL_TARGETS), [])
        self.assertEqual(len(backgrounds), 2)

    def test_a_link_for_viewers_has_no_controls(self):
        page = Page(self.driver, self.page.find("viewers-link").get_attribute("href"))
        page.wait_for_frames()
        self.assertEqual(page.ask_shown("a, input, button, select", lambda element: element.get_attribute("id")), ["codec"])

    def test_all_has_a_name(self):
        named = self.page.ask_shown("a, input, select, button, video, progress, ol",
                                    lambda element: (element.get_attribute("id"), element.accessible_name))
        for identifier, name in named:
            with self.subTest(identifier):
                self.assertNotEqual(name, "")
        for name, role in (("connection", "status"), ("note", "status"), ("error", "alert")):
            self.assertEqual(self.page.find(name).aria_role, role)
        self.assertEqual(self.page.find("air").get_attribute("aria-live"), "polite")

    def tab_to(self, name, is_it=None, most=30):
        """Presses Tab until the control has the focus, which must be seen each time."""
        is_it = is_it or (lambda element: element.get_attribute("id") == name)
        for _ in range(most):
            self.press(Keys.TAB)
            focused = self.driver.switch_to.active_element
            if focused.tag_name != "body":
                self.assertNotEqual(focused.value_of_css_property("outline-style"), "none")
            if is_it(focused):
                return
        self.fail(f"Tab does not lead to {name}")

    def press(self, *keys):
        self.driver.switch_to.active_element.send_keys(*keys)


class Pictures(unittest.TestCase):
    """With a model that takes them."""

    DROP = """
        const [kind, data] = arguments, transfer = new DataTransfer();
        transfer.items.add(new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'it', {type: 'image/png'}));
        const what = {bubbles: true, cancelable: true, dataTransfer: transfer, clipboardData: transfer};
        document.dispatchEvent(kind === 'drop' ? new DragEvent(kind, what) : new ClipboardEvent(kind, what));
    """

    @classmethod
    def setUpClass(cls):
        model = PictureModel()
        cls.addClassCleanup(model.close)
        cls.studio = Studio(PROGRAM, "--model", str(model.path), "--prompt", "")
        cls.addClassCleanup(cls.studio.stop)
        cls.driver = open_browser()
        cls.addClassCleanup(cls.driver.quit)

    def setUp(self):
        self.page = Page(self.driver, self.studio.url)
        wait_for("it is connected", lambda: self.page.text("viewers") == "1")
        self.driver.get_log("browser")

    def tearDown(self):
        self.assertTrue(self.studio.is_running())
        self.assertEqual(self.driver.get_log("browser"), [])

    def is_chosen(self):
        return self.page.run("return preview.isConnected")

    def preview(self):
        """Width and height of the picture that the page shows for the next clip."""
        wait_for("the picture is shown", lambda: self.is_chosen() and self.page.run("return preview.naturalWidth"))
        return self.page.run("return [preview.naturalWidth, preview.naturalHeight]")

    def test_a_picture_goes_through_the_queue_on_air(self):
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(encoded_picture(1600, 400, "png"))
            file.flush()
            self.page.wait_for_frames()
            # The browser's own window, which the button opens, is out of reach.
            self.page.run("chooser.style.display = 'block'; document.body.append(chooser); return chooser").send_keys(file.name)
            self.page.run("chooser.remove()")
            self.assertEqual(self.preview(), [533, 400])  # of the video's shape
            self.page.find("prompt").send_keys(RED, Keys.ENTER)
            for _ in range(3):  # so that it is seen in the queue before its turn
                self.page.find("prompt").send_keys(BLUE, Keys.ENTER)
            wait_for("the form is empty", lambda: not self.is_chosen())
        seen = wait_for("it is in the queue or on air", lambda: self.page.run(
            "return [...document.querySelectorAll('#queue img, #air-picture:not([hidden])')].map(each => each.src)"))
        status, headers, body = self.studio.get(re.sub("http://[^/]*", "", seen[0]))
        self.assertEqual((status, headers["Content-Type"], body[:3]), (200, "image/jpeg", b"\xff\xd8\xff"))
        self.assertEqual(headers["Cross-Origin-Resource-Policy"], "same-origin")
        wait_for("it is on air with its picture", lambda: self.page.text("air") == RED and
                 self.page.run("return document.getElementById('air-picture').naturalHeight") == 96)
        wait_for("the next has none", lambda: self.page.text("air") == BLUE and
                 not self.page.find("air-picture").is_displayed())
        for path in ("/picture/", "/picture/0", "/picture/x", "/picture/4294967296", "/picture/9999", "/pictures"):
            self.assertEqual(self.studio.get(path)[0], 404)

    def test_pictures_are_dropped_and_pasted(self):
        data = base64.b64encode(encoded_picture(300, 200, "png")).decode()
        for kind in ("drop", "paste"):
            with self.subTest(kind):
                self.page.run(self.DROP, kind, data)
                self.assertEqual(self.preview()[1], 200)
                self.page.find("remove").click()
                self.assertFalse(self.is_chosen())
        self.page.run(self.DROP, "paste", base64.b64encode(b"no picture").decode())
        wait_for("that is told", lambda: self.page.text("error") == "This browser cannot read it as a picture.")

    def test_a_large_picture_is_made_small_enough(self):
        noise = subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "nullsrc=size=1800x1800,geq=random(1)*255:128:128",
                                "-frames:v", "1", "-q:v", "2", "-f", "image2pipe", "-c:v", "mjpeg", "-"],
                               capture_output=True, check=True).stdout
        self.assertGreater(len(noise), 1024 * 1024)
        self.page.run(self.DROP, "drop", base64.b64encode(noise).decode())
        self.assertLessEqual(max(self.preview()), 1280)
        self.page.find("remove").click()


class Endless(Looks, unittest.TestCase):
    """A room to steer: the embedded model that makes one video without an end."""

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="wan-recordings-")
        cls.addClassCleanup(directory.cleanup)
        cls.studio = EndlessStudio(PROGRAM, "--prompt", BLUE, "--recordings", directory.name)
        cls.addClassCleanup(cls.studio.stop)
        cls.driver = open_browser()
        cls.addClassCleanup(cls.driver.quit)

    def setUp(self):
        self.page = Page(self.driver, self.studio.url)
        self.cut(BLUE)
        self.prompt = self.page.find("prompt")
        self.driver.get_log("browser")

    def tearDown(self):
        self.assertTrue(self.studio.is_running())
        self.assertEqual(self.driver.get_log("browser"), [])

    def cut(self, prompt):
        """By another page, so that this one shows it."""
        with self.studio.socket() as page:
            page.send(type="cut", prompt=prompt)
            clip = page.read("done")["clip"]
            number = wait_for("it is on air", lambda: (air := page.read("state").get("onAir")) and air["id"] == clip and air["clip"])
        wait_for("the page shows it", lambda: self.page.text("clip").startswith(f"Clip {number},"))

    def type(self, text, *keys):
        self.prompt.send_keys(Keys.CONTROL, "a")
        self.prompt.send_keys(text, *keys)

    def history(self):
        return self.page.run("return [...document.querySelectorAll('#history .prompt')].map(each => each.textContent)")

    def shown(self, *names):
        return [self.page.find(name).is_displayed() for name in names]

    def test_the_page_is_made_for_it(self):
        self.assertEqual(self.shown("morph", "history", "prompt-hint", "record"), [True] * 4)
        self.assertEqual(self.shown("queue", "skip", "stay", "steps", "making", "picture"), [False] * 6)
        self.assertEqual(self.prompt.get_property("value"), BLUE)

    def test_enter_cuts_to_a_new_scene(self):
        begin = time.monotonic()
        self.type(GREEN, Keys.ENTER)
        wait_for("it is on air", lambda: self.page.text("air") == GREEN)
        wait_for("the picture is green", lambda: self.page.colour() == "green")
        say(f"from Enter to the first green frame in the browser: {time.monotonic() - begin:.1f} s")
        self.assertEqual(self.prompt.get_property("value"), GREEN)
        self.assertRegex(wait_for("the delay is told", lambda: self.page.text("note")), r"^On air after \d+\.\d s\.$")
        self.assertRegex(self.page.text("prompt-to-air"), r"^\d+\.\d s$")
        say(f"from prompt to air: {self.page.text('prompt-to-air')}")
        self.assertEqual(self.history()[0], GREEN)

    def test_it_goes_on_until_something_else_is_asked_for(self):
        clip = self.page.text("clip")
        self.page.wait_for_frames(100)  # longer than a queued clip is shown where others wait
        self.assertEqual((self.page.text("air"), self.page.text("clip")), (BLUE, clip))

    def test_what_is_typed_changes_the_scene(self):
        self.type(RED)
        wait_for("it is on air", lambda: self.page.text("air") == RED)
        wait_for("the delay is told", lambda: re.match(r"On air after", self.page.text("note")))
        wait_for("the picture is red", lambda: self.page.colour() == "red")
        self.type(BLUE)  # back to what the property was before
        wait_for("it is on air again", lambda: self.page.text("air") == BLUE)

    def test_words_are_not_shown_letter_by_letter(self):
        with self.studio.socket() as page:
            before = page.read("state")["onAir"]["clip"]
            self.type(RED)
            wait_for("it is on air", lambda: self.page.text("air") == RED)
            self.assertLessEqual(page.read("state")["onAir"]["clip"], before + 2)

    def test_typing_changes_nothing_where_that_is_turned_off(self):
        self.page.find("morph").click()
        self.type(RED)
        self.page.wait_for_frames(40)
        self.assertEqual(self.page.text("air"), BLUE)
        self.assertEqual(self.prompt.get_property("value"), RED)
        self.prompt.send_keys(Keys.ENTER)
        wait_for("it is on air", lambda: self.page.text("air") == RED)

    def test_the_newest_of_several_is_shown(self):
        with self.studio.socket() as page:
            for number in range(6):
                page.send(type="cut", prompt=f"{RED} {number}")
            wait_for("it is on air", lambda: self.page.text("air") == f"{RED} 5")
            wait_for("none of the others waits", lambda: page.read("state")["queue"] == [])

    def test_texts_stay_texts(self):
        self.cut(HOSTILE)
        self.assertEqual((self.page.text("air"), self.history()[0], self.prompt.get_property("value")), 3 * (HOSTILE,))
        self.assertEqual(self.page.run(HACKED), [None, 0])

    def test_scenes_are_shown_again(self):
        self.cut(GREEN)
        self.cut(RED)
        self.assertEqual(self.history()[:2], [RED, GREEN])
        with self.studio.socket() as page:
            green = page.read("state")["history"][1]
        self.page.run("document.querySelector(`[data-scene='${arguments[0]}']`).focus()", green["scene"])
        self.driver.switch_to.active_element.send_keys(Keys.ENTER)
        wait_for("it is on air", lambda: self.page.text("air") == GREEN)
        self.assertTrue(self.page.text("clip").endswith(f"seed {green['seed']}"), self.page.text("clip"))
        with self.studio.socket() as page:
            history = page.read("state")["history"]
        self.assertEqual([scene["seed"] for scene in history].count(green["seed"]), 1)
        self.assertEqual(history[0]["seed"], green["seed"])

    def test_the_history_has_an_end(self):
        with self.studio.socket() as page:
            for number in range(18):
                page.send(type="cut", prompt=f"{BLUE} {number}")
                wait_for("it is on air", lambda: page.read("state")["onAir"]["prompt"] == f"{BLUE} {number}")
            history = page.read("state")["history"]
            self.assertEqual(len(history), 16)
            page.send(type="again", scene=history[-1]["scene"] - 1)
            self.assertIn("not in the history", page.read("error", "done")["message"])

    def test_pictures_are_refused_by_a_model_that_takes_none(self):
        self.page.run(Pictures.DROP, "drop", base64.b64encode(encoded_picture(64, 48, "png")).decode())
        wait_for("that is told", lambda: self.page.text("error") == "This model takes no pictures.")

    def test_all_can_be_done_by_keyboard(self):
        self.cut(GREEN)
        self.cut(BLUE)
        self.driver.find_element("tag name", "body").click()
        for name in ("record", "prompt", "morph"):
            self.tab_to(name)
        self.press(Keys.SPACE)
        self.assertFalse(self.page.find("morph").is_selected())
        self.press(Keys.SHIFT, Keys.TAB)
        self.press(Keys.CONTROL, "a")
        self.press(RED, Keys.ENTER)
        wait_for("it is on air", lambda: self.page.text("air") == RED)
        wait_for("it is in the history", lambda: self.history()[:3] == [RED, BLUE, GREEN])
        self.tab_to(None, lambda element: element.text.startswith(GREEN))
        self.press(Keys.SPACE)
        wait_for("it is on air again", lambda: self.page.text("air") == GREEN)


class EndlessPictures(unittest.TestCase):
    """With an endless model that begins from a picture."""

    def test_a_picture_that_is_dropped_begins_a_scene(self):
        model = EndlessPictureModel()
        self.addCleanup(model.close)
        studio = EndlessStudio(PROGRAM, "--prompt", BLUE, "--model", str(model.path))
        self.addCleanup(studio.stop)
        driver = open_browser()
        self.addCleanup(driver.quit)
        page = Page(driver, studio.url)
        wait_for("it is on air", lambda: page.text("air") == BLUE)
        clip = page.text("clip")
        page.run(Pictures.DROP, "drop", base64.b64encode(encoded_picture(320, 200, "png")).decode())
        wait_for("a scene has begun from it", lambda: page.find("air-picture").is_displayed() and page.text("clip") != clip)
        self.assertEqual((page.text("air"), page.text("error")), (BLUE, ""))
        page.find("prompt").send_keys(Keys.CONTROL, "a")
        page.find("prompt").send_keys(RED, Keys.ENTER)
        wait_for("the next has none", lambda: page.text("air") == RED and not page.find("air-picture").is_displayed())
        with studio.socket() as other:
            history = other.read("state")["history"]
            with_picture = next(scene for scene in history if scene["picture"])
            self.assertEqual(studio.get(f"/picture/{with_picture['id']}")[0], 200)
            other.send(type="again", scene=with_picture["scene"])
        wait_for("it is shown again", lambda: page.text("air") == BLUE and page.find("air-picture").is_displayed())
        self.assertTrue(studio.is_running())


class Recordings(unittest.TestCase):
    """Files of what is on air."""

    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="wan-recordings-")
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def open(self, *options, studio=EndlessStudio):
        self.studio = studio(PROGRAM, "--prompt", BLUE, "--recordings", self.directory, *options)
        self.addCleanup(self.studio.stop)
        self.page = self.studio.socket()
        self.addCleanup(self.page.__exit__)
        wait_for("it is on air", lambda: self.page.read("state").get("onAir"))

    def record(self, on):
        self.page.send(type="record", on=on)
        return self.page.read("done", "error")

    def wait_for_seconds(self, least):
        wait_for("it goes on", lambda: self.page.read("state")["recording"]["seconds"] >= least)

    def files(self):
        return sorted(os.listdir(self.directory))

    def frames(self, name):
        """Of a file that is whole, and can be decoded without a complaint: how many, and the time of the first and the last."""
        (duration,), = ffprobe("-show_entries", "format=duration", name, directory=self.directory)
        self.assertGreaterEqual(float(duration), 0)
        lines = ffprobe("-show_entries", "packet=pts_time,flags", "-select_streams", "v", name, directory=self.directory)
        decoded, = ffprobe("-count_frames", "-select_streams", "v", "-show_entries", "stream=nb_read_frames", name, directory=self.directory)
        self.assertEqual(len(lines), int(decoded[0]))
        self.assertEqual(lines[0][1][0], "K")
        return len(lines), float(lines[0][0]), float(lines[-1][0])

    def test_a_recording_has_all_frames_from_its_begin_to_its_end(self):
        self.open()
        self.page.send(type="watch", codecs=["h264"])  # its encoder has begun long before
        self.page.read("offer")
        dropped = self.page.read("state")["stats"]["dropped"]
        begun = self.record(True)
        self.assertRegex(begun["name"], r"^live-studio-\d{8}-\d{6}\.mkv$")
        self.assertEqual(self.record(True)["message"], "A recording runs already.")
        before = self.page.read("state")["stats"]
        self.wait_for_seconds(5)
        after = self.page.read("state")["stats"]
        self.assertEqual(self.record(False)["name"], begun["name"])
        ended = self.page.read("recorded")
        self.assertEqual((ended["name"], ended["reason"], self.files()), (begun["name"], "", [begun["name"]]))
        self.assertEqual(ended["bytes"], os.path.getsize(os.path.join(self.directory, begun["name"])))
        state = self.page.read("state")
        self.assertNotIn("recording", state)
        frames, first, last = self.frames(begun["name"])
        self.assertLess(first, 0.1)
        self.assertGreaterEqual(frames, after["frames-pushed"] - before["frames-pushed"])
        missing = round((last - first) * 16) + 1 - frames
        self.assertLessEqual(missing, state["stats"]["dropped"] - dropped)  # by the source, where the machine is busy

    def test_one_follows_another(self):
        self.open()
        names, counts = [], []
        for _ in range(4):
            names.append(self.record(True)["name"])
            self.wait_for_seconds(1)
            self.record(False)
            self.page.read("recorded")
            counts.append([self.studio.count("fd"), self.studio.count("task")])
            time.sleep(1)  # the names have seconds
        self.assertEqual(self.files(), sorted(names))
        for now, then in zip(counts[-1], counts[0]):  # libraries keep what they open once
            self.assertLessEqual(now, then + 1, counts)
        for name in names:
            self.assertGreater(self.frames(name)[0], 1)

    def test_a_recording_that_is_stopped_at_once_has_a_frame(self):
        self.open()
        name = self.record(True)["name"]
        self.record(False)
        self.page.read("recorded")
        self.assertGreater(self.frames(name)[0], 0)

    def test_the_file_is_whole_when_the_program_ends(self):
        self.open()
        name = self.record(True)["name"]
        self.wait_for_seconds(2)
        self.assertEqual(self.studio.stop(), 0)
        self.assertGreater(self.frames(name)[0], 16)

    def test_the_file_has_what_was_written_when_the_program_dies(self):
        self.open()
        name = self.record(True)["name"]
        self.wait_for_seconds(4)
        self.studio.stop(signal.SIGKILL)
        done = subprocess.run(["ffprobe", "-v", "fatal", "-of", "csv=p=0", "-count_frames", "-show_entries", "stream=nb_read_frames", name],
                              cwd=self.directory, capture_output=True, text=True, check=True)
        self.assertGreater(int(done.stdout.strip(",\n")), 32)

    def test_a_recording_ends_at_its_limit(self):
        model = PictureModel()  # of noise, which takes many bits
        self.addCleanup(model.close)
        self.open("--recording-limit", "1", "--model", str(model.path), studio=Studio)
        name = self.record(True)["name"]
        ended = self.page.read("recorded")
        self.assertEqual(ended["reason"], "The file is as large as it may be.")
        self.assertLess(ended["bytes"], 2 << 20)
        self.assertGreater(self.frames(name)[0], 16)
        self.assertIn("onAir", self.page.read("state"))

    def test_some_disk_space_is_left(self):
        # A file system of its own, which only the program sees.
        mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c",
                 f'mount -t tmpfs -o size={(1 << 30) + (4 << 20)} none {self.directory} && exec "$@"', "sh"]
        if subprocess.run([*mount, "true"], capture_output=True).returncode:
            self.skipTest("no file system can be mounted here")
        self.open(studio=lambda program, *options: EndlessStudio([*mount, program], *options))
        self.record(True)
        with open(f"/proc/{self.studio.process.pid}/root/{self.directory}/other", "wb") as file:
            file.write(bytes(6 << 20))
        self.assertEqual(self.page.read("recorded")["reason"], "There is less than 1 GiB of disk space left.")
        self.assertEqual(self.record(True)["message"], "There is less than 1 GiB of disk space left.")

    def test_a_directory_that_is_gone_is_told(self):
        self.open()
        os.rmdir(self.directory)
        self.assertIn("cannot be made", self.record(True)["message"])
        os.mkdir(self.directory)

    def test_nobody_records_without_a_directory(self):
        studio = EndlessStudio(PROGRAM)
        self.addCleanup(studio.stop)
        with studio.socket() as page:
            self.assertFalse(page.read("hello")["records"])
            page.send(type="record", on=True)
            self.assertIn("--recordings", page.read("error")["message"])


class Browser(Looks, unittest.TestCase):
    """What a person sees and does."""

    @classmethod
    def setUpClass(cls):
        cls.studio = Studio(PROGRAM, "--prompt", BLUE)
        cls.addClassCleanup(cls.studio.stop)
        cls.driver = open_browser()
        cls.addClassCleanup(cls.driver.quit)

    def setUp(self):
        self.page = Page(self.driver, self.studio.url)
        wait_for("the picture is blue", lambda: self.page.colour() == "blue")
        self.driver.get_log("browser")

    def tearDown(self):
        self.assertTrue(self.studio.is_running())

    def settle(self):
        """Back to what setUp() expects."""
        with self.studio.socket() as page:
            for message in ({"type": "clear"}, {"type": "set", "prompt": BLUE}, {"type": "skip"}, {"type": "skip"}):
                page.send(**message)
                page.read("done")

    def test_video_moves_in_each_codec(self):
        for codec, label in (("VP8", "VP8"), ("H264", "H.264")):
            with self.subTest(codec):
                Select(self.page.find("codec")).select_by_visible_text(label)
                wait_for(f"video comes as {codec}",
                         lambda: (self.page.inbound() or {}).get("codec") == f"video/{codec}")
                rate = self.page.wait_for_frames(64)
                say(f"{codec}: {rate:.1f} frames a second in the browser, of 16")
                self.assertEqual(wait_for("the picture is blue", self.page.colour), "blue")
                self.assertRegex(wait_for("figures are shown", lambda: self.page.text("received").strip("–")), codec)
        self.assertEqual(self.driver.get_log("browser"), [])

    def test_a_prompt_changes_the_picture(self):
        self.addCleanup(self.settle)
        begin = time.monotonic()
        self.page.find("prompt").send_keys(RED, Keys.ENTER)
        wait_for("the queue is shown or done", lambda: RED in (self.page.text("queue"), self.page.text("air")) or
                 self.page.text("note") == "Added to the queue.")
        self.assertEqual(self.page.find("prompt").get_property("value"), "")
        wait_for("the clip is on air", lambda: self.page.text("air") == RED)
        on_air = time.monotonic()
        wait_for("the picture is red", lambda: self.page.colour() == "red")
        say(f"from Enter to red: {time.monotonic() - begin:.1f} s, of which {time.monotonic() - on_air:.2f} s "
            "after the clip went on air")
        self.assertRegex(self.page.text("prompt-to-air"), r"^\d+\.\d s$")
        wait_for("the picture is blue again", lambda: self.page.colour() == "blue")

    def test_a_prompt_stays_until_changed(self):
        self.addCleanup(self.settle)
        self.page.find("prompt").send_keys(GREEN)
        self.page.find("stay").click()
        wait_for("it is shown", lambda: self.page.text("standing") == f"Then: {GREEN}")
        begin = time.monotonic()
        self.page.find("skip").click()
        wait_for("the picture is green", lambda: self.page.colour() == "green")
        say(f"from skip to green: {time.monotonic() - begin:.1f} s")
        self.page.wait_for_frames(80)  # more than a clip
        self.assertEqual(wait_for("the picture is plain", self.page.colour), "green")

    def test_all_can_be_done_by_keyboard(self):
        self.addCleanup(self.settle)
        self.driver.find_element("tag name", "body").click()
        self.tab_to("prompt")
        for _ in range(3):
            self.press(RED, Keys.ENTER)
            wait_for("it is queued", lambda: self.page.find("prompt").get_property("value") == "")
        queue = wait_for("the queue is shown", lambda: self.page.text("queue"))
        self.assertEqual(set(queue.split(RED)), {""})
        self.tab_to("clear")
        self.press(Keys.SPACE)
        wait_for("the queue is empty", lambda: self.page.text("queue") == "")
        self.tab_to("seed")
        self.press("77")
        self.tab_to("steps")
        self.press(Keys.CONTROL, "a")
        self.press("3", Keys.ENTER)
        wait_for("the seed is used", lambda: re.search(r"seed (77|78)\b", self.page.text("making")))
        wait_for("so are the steps", lambda: re.search(r"denoising, . of 3", self.page.text("making")))
        self.assertEqual(self.page.find("seed").get_property("value"), "")
        self.tab_to("codec")
        self.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
        wait_for("video comes as H.264", lambda: (self.page.inbound() or {}).get("codec") == "video/H264")
        with self.studio.socket() as page:
            page.send(type="set", steps=4)
            page.read("done")

    def test_texts_stay_texts(self):
        self.addCleanup(self.settle)
        with self.studio.socket() as page:
            page.send(type="set", prompt=HOSTILE)
            page.read("done")
            page.send(type="skip")
        for _ in range(3):
            self.page.find("prompt").send_keys(HOSTILE, Keys.ENTER)
            wait_for("it is queued", lambda: self.page.find("prompt").get_property("value") == "")
        self.page.run("send({type: arguments[0]})", "<img src=x>")
        wait_for("an error shows it", lambda: "<img src=x>" in self.page.text("error"))
        wait_for("the queue shows it", lambda: HOSTILE in self.page.text("queue"))
        wait_for("it is on air", lambda: self.page.text("air") == HOSTILE)
        self.assertIn(HOSTILE, self.page.text("standing"))
        self.assertIn(HOSTILE, self.page.text("history"))
        self.assertEqual(self.page.run(HACKED), [None, 0])

    def test_it_reconnects(self):
        self.page.run("location.reload()")
        self.page.wait_for_frames()
        with self.subTest("the page's socket is closed"):
            self.page.run("socket.close()")
            wait_for("that is shown", lambda: self.page.text("connection") != "Live")
            self.page.wait_for_frames()
        with self.subTest("the program ends and starts again"):
            self.assertEqual(self.studio.stop(), 0)
            wait_for("that is told", lambda: "Not connected" in self.page.text("connection"))
            self.page.find("skip").click()
            self.assertEqual(self.page.text("error"), "Not connected.")
            self.studio.start(self.studio.port)
            self.page.wait_for_frames()
            self.assertEqual(self.page.text("connection"), "Live")
        with self.subTest("the program dies"):
            self.studio.stop(signal.SIGKILL)
            wait_for("that is told", lambda: "Not connected" in self.page.text("connection"))
            self.studio.start(self.studio.port)
            self.page.wait_for_frames()
        with self.subTest("the video alone breaks off"):
            self.page.run("peer.close()")
            begin = time.monotonic()
            wait_for("that is told", lambda: "No video gets through" in self.page.text("connection"))
            self.page.wait_for_frames()
            say(f"video that broke off was there again after {time.monotonic() - begin:.1f} s")

    def test_two_viewers(self):
        Select(self.page.find("codec")).select_by_value("vp8")
        self.driver.switch_to.new_window("window")
        second = Page(self.driver, self.studio.url)
        try:
            Select(second.find("codec")).select_by_value("h264")
            wait_for("both are counted", lambda: second.text("viewers") == "2")
            for name, page in (("the second", second), ("the first", self.page)):
                rate = page.select().wait_for_frames(48)
                say(f"two viewers, {name}: {rate:.1f} frames a second, {page.inbound()['codec']}")
            # What one does, the other sees; the same codec is encoded once for both.
            Select(self.page.find("codec")).select_by_value("h264")
            self.page.wait_for_frames(48)
            for _ in range(3):
                self.page.find("prompt").send_keys(BLUE, Keys.ENTER)
                wait_for("it is queued", lambda: self.page.find("prompt").get_property("value") == "")
            wait_for("the second sees it", lambda: second.select().text("queue").startswith(BLUE))
            second.wait_for_frames(48)
        finally:
            second.select()
            self.driver.close()
            self.page.select()
        wait_for("one is left", lambda: self.page.text("viewers") == "1")
        self.page.wait_for_frames(48)
        self.settle()

    def test_wrong_messages_disturb_nobody(self):
        before = self.page.inbound()
        with self.studio.socket() as hostile:
            for text in ("x", "[" * 30000, '{"type": "watch", "codecs": []}', '{"type": "set", "steps": 1e9}') * 10:
                hostile.send_text(text)
                hostile.read("error")
        self.page.wait_for_frames()
        self.assertEqual(self.page.inbound()["id"], before["id"])



# A prompt that a page is not to take for a part of itself, and whether it has.
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\"'&amp;\u202e{{1}}"
HACKED = "return [window.hacked, document.querySelectorAll('img[src=x], main script').length]"
# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2, AA).
LOW_CONTRAST = """
    const parse = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = rgb => rgb.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        const colour = parse(getComputedStyle(element).backgroundColor);
        return colour[3] === 0 ? behind(element.parentElement) : colour;
    };
    const contrast = element => {
        const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind(element))].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    };
    return [...document.querySelectorAll('a, h1, h2, h3, p, label, button, span, input, select, li, dt, dd')]
        .filter(element => contrast(element) < 4.5).map(element => element.outerHTML);
"""
# Controls that are hard to hit with a finger.
SMALL_TARGETS = """
    return [...document.querySelectorAll('a, button, input, select')].filter(element => element.offsetParent)
        .filter(element => (element.closest('label') ?? element).getBoundingClientRect().height < 44).map(element => element.outerHTML);
"""

def processes_left():
    """Those that the tests have started, and theirs."""
    own = os.getpid()
    left = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                name, state, parent = re.search(r"\((.*)\) (.) (\d+)", file.read()).groups()
        except OSError:
            continue  # it has ended
        if int(parent) == own and state != "Z":
            left.append(f"{name} ({pid})")
    return left


def main():
    # What is orphaned becomes a child of this process, and so can be found.
    PR_SET_CHILD_SUBREAPER = 36
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    result = unittest.main(verbosity=2, exit=False).result
    wait_for("no process is left", lambda: not processes_left())
    return not result.wasSuccessful()


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    sys.exit(main())
