# WebRTC: one webrtcbin sends to another.
#
# SPDX-License-Identifier: LGPL-2.1-or-later
import itertools
import time

import gi

import peers
import support
from support import Gst

gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GstSdp, GstWebRTC  # noqa: E402, F401

RTC = "webrtcbin name=rtc bundle-policy=max-bundle"
VP8 = "vp8enc deadline=1 keyframe-max-dist=32 ! rtpvp8pay pt=96 ! rtc."
H264 = (
    f"{support.H264} ! video/x-h264,profile=constrained-baseline ! "
    "rtph264pay pt=96 config-interval=-1 aggregate-mode=zero-latency ! rtc."
)
OPUS = f"{support.SILENCE} ! opusenc ! rtpopuspay pt=97 ! rtc."
HOLE = 0.5  # in the audio, which also loses some on a busy machine
TOLERANCE = 0.001
START = 8  # frames, half a second
DECODERS = {
    "VP8": "rtpvp8depay name=depay ! vp8dec",
    "H264": "rtph264depay name=depay ! avdec_h264",
    "OPUS": "rtpopusdepay name=depay ! opusdec",
}


class Peer:
    """A webrtcbin, and how it comes to terms with the other."""

    def __init__(self, pipeline):
        self.rtc = pipeline["rtc"]
        self.other = None
        ice = self.rtc.get_property("ice-agent")
        ice._ref()  # it comes floating, and PyGObject takes for its own the reference that webrtcbin counts on
        ice.emit("add-local-ip-address", "127.0.0.1")
        self.rtc.connect("on-ice-candidate", lambda _, *candidate: self.other.rtc.emit("add-ice-candidate", *candidate))

    def call(self, other):
        self.other, other.other = other, self
        self.rtc.connect("on-negotiation-needed", lambda _: self.describe("offer"))

    def describe(self, kind):
        """Makes an offer or an answer, and tells it to both sides."""

        def made(promise):
            reply = promise.get_reply()  # which the description lies in
            description = reply.get_value(kind)
            self.rtc.emit("set-local-description", description, Gst.Promise.new())
            self.other.hear(kind, description)

        self.rtc.emit(f"create-{kind}", None, Gst.Promise.new_with_change_func(made))

    def hear(self, kind, description):
        def heard(_):
            if kind == "offer":
                self.describe("answer")

        self.rtc.emit("set-remote-description", description, Gst.Promise.new_with_change_func(heard))


class Receiver(support.Pipeline):
    """Decodes what comes, and notes by codec the stamps of packets and the first byte of frames, a pixel's luma."""

    def __init__(self):
        super().__init__(RTC)
        self.packets, self.frames = {}, {}
        self["rtc"].connect("pad-added", self.decode)

    def decode(self, _, pad):
        # By way of a string, since what caps give out is not the same in all versions of GStreamer's bindings.
        codec = Gst.Structure(pad.get_current_caps().to_string())["encoding-name"]
        decoder = Gst.parse_bin_from_description(f"{DECODERS[codec]} ! fakesink name=sink sync=false", True)
        packets, frames = (decoder.get_by_name(name).get_static_pad("sink") for name in ("depay", "sink"))
        self.packets[codec] = self.watch(packets, support.rtp_stamp)
        self.frames[codec] = self.watch(frames, lambda frame: frame.extract_dup(0, 1)[0])
        self.element.add(decoder)
        decoder.sync_state_with_parent()
        pad.link(decoder.get_static_pad("sink"))

    def times(self, codec, rate):
        return support.rtp_seconds((stamp for *_, stamp in self.packets[codec]), rate)

    def lumas(self, codec):
        return [luma for *_, luma in self.frames[codec]]


class WebRtc(support.TestCase):
    def send(self, codec, media):
        """Sends the show in a codec, and looks at what arrives."""
        show, receiver = support.Show(f"{media} {RTC}"), Receiver()
        Peer(show).call(Peer(receiver))
        self.play(receiver)
        self.play(show)
        self.assertTrue(show.over.wait(90))
        # What is sent before the receiver's DTLS has its keys is lost, a key frame with it.
        peers.until(lambda: len(receiver.frames[codec]) >= len(show.video) - START)
        time.sleep(1)  # for the last ones
        times = receiver.times(codec, 90000)
        # The end of the show is not that of the connection: there is no EOS on the bus of a webrtcbin.
        for pipeline in show, receiver:
            self.assertIsNone(pipeline.wait_for(Gst.MessageType.EOS, 0))
        self.check_sent(show)
        self.check_times(show.video[-len(times):], times, TOLERANCE)
        self.check_show(receiver.lumas(codec))
        return show, receiver

    def test_vp8_and_opus(self):
        show, receiver = self.send("VP8", f"{VP8} {OPUS}")
        times = receiver.times("OPUS", 48000)
        self.assertLess(max(after - before for before, after in itertools.pairwise(times)), HOLE)
        self.assertAlmostEqual(times[-1], show.audio[-1][0] - show.audio[0][0], delta=HOLE)

    def test_h264(self):
        self.send("H264", H264)


if __name__ == "__main__":
    support.main()
