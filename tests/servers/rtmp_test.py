# RTMP: nginx takes the stream and records it.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import support

CONFIG = """
load_module /usr/lib/nginx/modules/ngx_rtmp_module.so;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr error;
events {{}}
rtmp {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    application live {{ live on; record all; record_path {directory}; }}
  }}
}}
"""
TOLERANCE = 0.002  # FLV counts milliseconds
# flvmux moves what comes later than its latency behind what it has written already.
MOVED = 1 / support.FPS
AAC = f"{support.SILENCE} ! voaacenc ! mux."


class Rtmp(support.TestCase):
    def setUp(self):
        super().setUp()
        self.port = support.free_port()
        with open(self.path("nginx.conf"), "w") as file:
            file.write(CONFIG.format(directory=self.directory, port=self.port))
        self.nginx = self.start("/usr/sbin/nginx", "-p", self.directory, "-c", self.path("nginx.conf"), "-e", "stderr")
        support.until(lambda: support.listens(self.port))

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
