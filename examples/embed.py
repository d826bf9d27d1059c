#!/usr/bin/env python3
"""Videos in a Python program: takes the frames from an appsink, shows how far the work is, changes the prompt while it
runs, and tells what went wrong. Prints a line for each frame, with the mean colour of its pixels.

    embed.py "a red circle bouncing on a blue background" "a green star rising on a white background"
    embed.py --model Wan2.2-TI2V-5B-Diffusers --image cat.jpg "the cat turns its head" "it jumps"

With a model that takes pictures, clips begin with that of --image, a path or URI, or with one that is painted here:
--colour 3060c0.

Debian: python3-gi gir1.2-gst-plugins-base-1.0 python3-gst-1.0. embed.cpp does the same in C++."""

# SPDX-License-Identifier: LGPL-2.1-or-later
import argparse
import signal
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstVideo", "1.0")
from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: E402, F401 (GstApp gives appsink its methods)

# appsink takes RGB, and the engine makes it: no converter is needed. max-buffers holds the source back when frames are
# taken slower than they are made. sync=false: as fast as they come, not at their times.
LAUNCH = """wansrc name=wan ! video/x-raw,format=RGB !
            appsink name=sink max-buffers=4 sync=false emit-signals=true"""


def mean_colour(buffer, info):
    with buffer.map(Gst.MapFlags.READ) as mapped:
        data = bytes(mapped.data)
    # Rows may be padded, so their distance is the video info's to say.
    rows = [data[y * info.stride[0]:][:info.width * 3] for y in range(info.height)]
    red, green, blue = (sum(sum(row[channel::3]) for row in rows) // (info.width * info.height) for channel in range(3))
    return f"#{red:02x}{green:02x}{blue:02x}"


def take_sample(sink):
    """Runs in the streaming thread; the next frame waits until it returns."""
    sample = sink.emit("pull-sample")
    if sample is None:
        return Gst.FlowReturn.EOS
    buffer = sample.get_buffer()
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    meta = buffer.get_custom_meta("GstWanMeta").get_structure()  # where a frame comes from travels with it
    print(f"clip {meta.get_int('clip').value}, frame {meta.get_int('frame').value}, "
          f"{buffer.pts / Gst.SECOND:.3f} s: {mean_colour(buffer, info)}", flush=True)
    return Gst.FlowReturn.OK


def paint(colour):
    """A picture may be pixels that the program has, in any format of raw video: the caps say what they are."""
    caps = Gst.Caps.from_string("video/x-raw,format=RGB,width=64,height=48,framerate=0/1")
    return Gst.Sample.new(Gst.Buffer.new_wrapped(bytes.fromhex(colour) * 64 * 48), caps, None, None)


class Embed:
    def __init__(self, prompts, model, image, colour):
        self.prompts = prompts  # still to be enqueued
        self.enqueued_clips = 0
        self.newest_clip = -1
        self.failed = False
        self.loop = GLib.MainLoop()
        self.pipeline = Gst.parse_launch_full(LAUNCH, None, Gst.ParseFlags.FATAL_ERRORS)
        self.wan = self.pipeline.get_by_name("wan")
        if model:
            self.wan.props.model = model
        if image:
            self.wan.props.image = image
        self.picture = paint(colour) if colour else None
        # While one clip is made another waits. A clip may take less time than it takes to enqueue the next one, and with
        # an empty queue the stream would end.
        self.enqueue_next()
        self.enqueue_next()
        self.pipeline.get_by_name("sink").connect("new-sample", take_sample)

    def enqueue_next(self):
        """A queued clip comes before any other, and the stream does not end before the queue is empty. The second
        argument may hold settings of that clip alone; setting the property "prompt" would change all clips from the
        next on."""
        if self.prompts:
            self.enqueued_clips += 1
            settings = Gst.Structure.new_from_string(f"settings, seed=(gint64){self.enqueued_clips}")
            if self.picture:
                settings.set_value("image", self.picture)
            self.wan.emit("enqueue", self.prompts.pop(0), settings)

    def show_progress(self, progress):
        clip = progress.get_int("clip").value
        step, steps = progress.get_int("step").value, progress.get_int("steps").value
        print(f"clip {clip}: {progress.get_string('stage')} {step}/{steps}", file=sys.stderr)
        if clip > self.newest_clip:
            self.newest_clip = clip
            self.enqueue_next()

    def take_message(self, _bus, message):
        """Messages of the pipeline, in the main loop's thread."""
        if message.has_name("wan-progress"):
            self.show_progress(message.get_structure())
        elif message.type == Gst.MessageType.ERROR:
            error, _debug = message.parse_error()  # debug says more, for developers
            print(error.message, file=sys.stderr)
            self.failed = True
            self.loop.quit()
        elif message.type == Gst.MessageType.EOS:
            self.loop.quit()

    def end(self):
        """Ctrl-C: what is made already still comes out, then EOS."""
        self.pipeline.send_event(Gst.Event.new_eos())
        return GLib.SOURCE_CONTINUE

    def run(self):
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message", self.take_message)
        GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGINT, self.end)
        # A failure here is on the bus as well, with the reason.
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        bus.remove_signal_watch()
        self.pipeline.set_state(Gst.State.NULL)
        return 1 if self.failed else 0


def main():
    Gst.init(None)
    parser = argparse.ArgumentParser(description="Makes a clip of each prompt, and prints the mean colour of its frames.")
    parser.add_argument("--model", metavar="DIRECTORY")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--image", metavar="FILE")
    begin.add_argument("--colour", metavar="RRGGBB")
    parser.add_argument("prompts", metavar="PROMPT", nargs="+")
    arguments = parser.parse_args()
    try:
        embed = Embed(arguments.prompts, arguments.model, arguments.image, arguments.colour)
    except GLib.Error as error:
        print(f"{error.message}. Is GST_PLUGIN_PATH set?", file=sys.stderr)
        return 1
    return embed.run()


if __name__ == "__main__":
    sys.exit(main())
