# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command gst-wan."""
import argparse
import os
import shlex
import sys

import gst_wan
from gst_wan import doctor


def print_environment(_arguments):
    for name, value in gst_wan.environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def launch(arguments):
    """Becomes gst-launch-1.0, whose exit status and signals are then the command's."""
    try:
        os.execvp("gst-launch-1.0", ["gst-launch-1.0", *arguments.line])
    except FileNotFoundError:
        print(f"gst-wan: {doctor.NO_GSTREAMER}", file=sys.stderr)
        return 127


def work(arguments):
    os.execv(gst_wan.WORKER, ["gst-wan worker", *arguments.options])


def examine(arguments):
    return doctor.main(arguments.directories)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="gst-wan", description="Runs wansrc, which makes videos with Wan 2.2, in GStreamer.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("env", help='prints the environment for other programs: eval "$(gst-wan env)"')
    command.set_defaults(run=print_environment)
    command = commands.add_parser("launch", help="runs a launch line: gst-wan launch wansrc prompt=… ! …", add_help=False,
                                  prefix_chars="\0")
    command.add_argument("line", nargs=argparse.REMAINDER)
    command.set_defaults(run=launch)
    command = commands.add_parser("worker", help="gives the devices of this host to a wansrc on another one", add_help=False,
                                  prefix_chars="\0")
    command.add_argument("options", nargs=argparse.REMAINDER)
    command.set_defaults(run=work)
    command = commands.add_parser("doctor", help="says what is there, and which checkpoints would load",
                                  description="Says in plain words what of GStreamer, LibTorch, CUDA and GPUs is there, and "
                                  "which checkpoints would load in which memory mode. The exit status is 0 if wansrc runs "
                                  "here and all the checkpoints would load, otherwise 1.")
    command.add_argument("directories", metavar="DIRECTORY", nargs="*", help="a checkpoint, or a directory of checkpoints")
    command.set_defaults(run=examine)
    return parser.parse_args(arguments)


def main(arguments=None):
    parsed = parse(arguments)
    return parsed.run(parsed)
