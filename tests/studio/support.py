# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the live studio stand on: the program, a browser, and a WebSocket that may say anything."""
import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import resource
import socket
import struct
import subprocess
import tempfile
import time

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
PATIENCE = 60  # seconds until a test gives up on something that takes one or two


def wait_for(what, condition, patience=PATIENCE):
    """Returns the condition's value once it is true."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {patience} s")


class Studio:
    """The program, with small and short clips of the embedded model."""

    def __init__(self, program, *options, port=0, descriptors=None, **environment):
        """With at most so many file descriptors, and environment variables. `program` may be several words."""
        self.program = program if isinstance(program, list) else [program]
        self.options = options
        self.environment = {**os.environ, **environment}
        self.limit = descriptors and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors)))
        self.start(port)

    def command(self, port):
        return [*self.program, "--model", str(MODELS / "wan-tiny"), "--port", str(port), "--width", "128", "--height", "96", "--num-frames", "33",
                "--steps", "4", "--seed", "1", *self.options]

    def start(self, port=0):
        command = self.command(port)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self.environment,
                                        preexec_fn=self.limit)
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, f"no URL in {line!r}"
        self.url, self.port = found[0], int(found[1])

    def is_running(self):
        return self.process.poll() is None

    def stop(self, signal=None):
        """Returns the exit status."""
        if self.is_running():
            self.process.terminate() if signal is None else self.process.send_signal(signal)
        status = self.process.wait(PATIENCE)
        self.process.stdout.close()
        return status

    def count(self, what):
        """Of the process: its "fd" or its "task"s."""
        return len(os.listdir(f"/proc/{self.process.pid}/{what}"))

    def get(self, path, host=None):
        """The HTTP answer's status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, answer.headers, body

    def memory(self):
        """Bytes that are resident."""
        with open(f"/proc/{self.process.pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def connect(self, receive_buffer=None):
        """A bare TCP connection."""
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(PATIENCE)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def socket(self, **headers):
        return Socket(self.port, **headers)


class EndlessStudio(Studio):
    """The program with the embedded model that makes one video without an end."""

    def command(self, port):
        return [*self.program, "--model", str(MODELS / "wan-tiny-causal"), "--port", str(port), "--seed", "1", *self.options]


class EndlessPictureModel:
    """The same model, which begins from pictures as others do."""

    def __init__(self):
        self._directory = tempfile.TemporaryDirectory(prefix="wan-endless-pictures-")
        self.path = pathlib.Path(self._directory.name) / "causal"
        self.path.mkdir()
        (self.path.parent / "wan-tiny").symlink_to(MODELS / "wan-tiny")
        embedded = MODELS / "wan-tiny-causal"
        for file in embedded.iterdir():
            (self.path / file.name).symlink_to(file)
        settings = json.loads((embedded / "gst-wan.json").read_text())
        settings["causal"]["image_start"] = "alone"
        (self.path / "gst-wan.json").unlink()
        (self.path / "gst-wan.json").write_text(json.dumps(settings))

    def close(self):
        self._directory.cleanup()


def encoded_picture(width, height, encoder="mjpeg"):
    """The bytes of a picture file."""
    return subprocess.run(["ffmpeg", "-v", "error", "-f", "lavfi", "-i", f"testsrc=size={width}x{height}", "-frames:v", "1",
                           "-c:v", encoder, "-f", "image2pipe", "-"], capture_output=True, check=True).stdout


class Socket:
    """A WebSocket client that sends whatever it is told to."""

    def __init__(self, port, host=None, origin=None, **more):
        host = host or f"127.0.0.1:{port}"
        origin = f"http://{host}" if origin is None else origin
        headers = {"Host": host, "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
                   "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()}
        if origin:
            headers["Origin"] = origin
        headers.update(more)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", "/socket", headers=headers)
        self.socket = connection.sock
        # Unbuffered, so that nothing after the answer's head is read with it.
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                break
            head += byte
        self.status = int(head.split()[1])
        self.head = head.decode().lower()
        self.messages = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send_frame(self, opcode, payload, whole=True):
        mask = os.urandom(4)
        size = len(payload)
        if size < 126:
            length = struct.pack("!B", 0x80 | size)
        elif size < 65536:
            length = struct.pack("!BH", 0x80 | 126, size)
        else:
            length = struct.pack("!BQ", 0x80 | 127, size)
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")) \
            .to_bytes(size, "big")
        self.socket.sendall(bytes([0x80 * whole | opcode]) + length + mask + masked)

    def send_text(self, text):
        self.send_frame(1, text.encode() if isinstance(text, str) else text)

    def send_picture(self, data):
        self.send_frame(2, data)

    def send(self, **message):
        self.send_text(json.dumps(message))

    def read_exactly(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def read_frame(self):
        """Opcode and payload. Pings are answered."""
        first, length = self.read_exactly(2)
        if length == 126:
            length, = struct.unpack("!H", self.read_exactly(2))
        elif length == 127:
            length, = struct.unpack("!Q", self.read_exactly(8))
        payload = self.read_exactly(length)
        if first & 15 == 9:
            self.send_frame(10, payload)
            return self.read_frame()
        return first & 15, payload

    def read(self, *types):
        """The next message of one of these types."""
        while True:
            opcode, payload = self.read_frame()
            assert opcode == 1, f"opcode {opcode}: {payload}"
            message = json.loads(payload)
            if message["type"] in types:
                return message

    def close_code(self):
        """Reads until the connection is closed; the code that says why."""
        while True:
            opcode, payload = self.read_frame()
            if opcode == 8:
                return struct.unpack("!H", payload[:2])[0]


class Page:
    """A page of the studio in a browser's window."""

    COLOUR = """
        const video = document.getElementById('video');
        if (!video.videoWidth) return null;
        const canvas = new OffscreenCanvas(8, 8), context = canvas.getContext('2d');
        context.drawImage(video, 0, 0, 8, 8);
        const {data} = context.getImageData(0, 0, 8, 8);
        return [0, 1, 2].map(channel => data.filter((_, i) => i % 4 === channel).reduce((a, b) => a + b) / 64);
    """
    INBOUND = """
        const done = arguments[arguments.length - 1];
        if (!peer) return done(null);
        peer.getStats().then(stats => {
            const reports = [...stats.values()];
            const inbound = reports.find(({type, kind}) => type === 'inbound-rtp' && kind === 'video');
            const codec = reports.find(({id}) => id === inbound?.codecId)?.mimeType;
            done(inbound ? {...inbound, codec} : null);
        });
    """

    def __init__(self, driver, url):
        self.driver = driver
        driver.get("about:blank")  # or nothing is loaded where only what is behind the "#" is another
        driver.get(url)
        self.window = driver.current_window_handle

    def select(self):
        self.driver.switch_to.window(self.window)
        return self

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def text(self, name):
        return self.find(name).get_property("textContent")

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def ask_shown(self, selector, ask):
        """What each element that is shown answers. The page makes its lists anew, and then all are asked again."""
        def answers():
            with contextlib.suppress(StaleElementReferenceException):
                return [ask(element) for element in self.driver.find_elements(By.CSS_SELECTOR, selector) if element.is_displayed()]
        return wait_for("elements stay while they are asked", answers)

    def inbound(self):
        """What the browser reports of the video that comes in, or None."""
        return self.driver.execute_async_script(self.INBOUND)

    def frames(self):
        inbound = self.inbound()
        return inbound["framesDecoded"] if inbound else 0

    def colour(self):
        """Which of the primary colours the picture has most of, or None if that is not plain."""
        mean = self.run(self.COLOUR)
        if not mean:
            return None
        last, second, first = sorted(mean)
        return "red green blue".split()[mean.index(first)] if first > second + 25 else None

    def wait_for_frames(self, count=20):
        """Frames a second, over at least so many frames of one connection."""
        def begin():
            return self.inbound()
        start = wait_for("video comes in", lambda: (self.inbound() or {}).get("framesDecoded") and self.inbound())

        def enough():
            now = self.inbound()
            return now and now["id"] == start["id"] and now["framesDecoded"] >= start["framesDecoded"] + count and now
        end = wait_for("the video goes on", enough)
        return (end["framesDecoded"] - start["framesDecoded"]) * 1000 / (end["timestamp"] - start["timestamp"])


def open_browser():
    options = Options()
    options.binary_location = "/usr/bin/chromium"
    # As root, Chromium runs only without its sandbox. A page in the background must not be slowed down.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", "--disable-component-update", "--no-first-run",
                     "--disable-renderer-backgrounding", "--disable-backgrounding-occluded-windows",
                     "--window-size=1200,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=options)
