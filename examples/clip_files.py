#!/usr/bin/env python3
"""Makes a file of each clip, clip-00000.mp4 and so on, without a gap between them: splitmuxsink begins a new file at each
clip's first frame, which is a key frame since wansrc asks for one.

    clip_files.py "a red circle bouncing on a blue background" "a green star rising on a white background"

Debian: python3-gi python3-gst-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-plugins-bad."""

# SPDX-License-Identifier: LGPL-2.1-or-later
import argparse
import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

# Without B-frames, since splitmuxsink looks for the end of a file by decoding times, and without lookahead, since an
# encoder that still holds one forced key frame back takes no request for another.
LAUNCH = """wansrc name=wan num-clips=0 ! x264enc tune=zerolatency ! h264parse !
            splitmuxsink name=files location=clip-%05d.mp4"""


def split_at_clip(_pad, info, files):
    """Runs in the streaming thread, with each event that goes downstream: the event wan-clip comes before a clip's first
    frame, and so before splitmuxsink sees it."""
    event = info.get_event()
    if event.has_name("wan-clip") and event.get_structure().get_int("clip").value > 0:
        files.emit("split-at-running-time", event.get_structure().get_uint64("pts").value)
    return Gst.PadProbeReturn.OK


def main():
    Gst.init(None)
    parser = argparse.ArgumentParser(description="Makes a file of each prompt's clip.")
    parser.add_argument("prompts", metavar="PROMPT", nargs="+")
    prompts = parser.parse_args().prompts
    try:
        pipeline = Gst.parse_launch_full(LAUNCH, None, Gst.ParseFlags.FATAL_ERRORS)
    except GLib.Error as error:
        print(f"{error.message}. Is GST_PLUGIN_PATH set?", file=sys.stderr)
        return 1
    wan = pipeline.get_by_name("wan")
    for prompt in prompts:
        wan.emit("enqueue", prompt, None)
    wan.get_static_pad("src").add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, split_at_clip, pipeline.get_by_name("files"))
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(Gst.CLOCK_TIME_NONE, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    if message.type == Gst.MessageType.ERROR:
        print(message.parse_error()[0].message, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
