# SPDX-License-Identifier: LGPL-2.1-or-later
"""wansrc, a GStreamer element that generates video with Wan 2.2.

After `import gst_wan` GStreamer finds the element in this process and those that it starts:

    import gst_wan
    gi.require_version("Gst", "1.0")
    from gi.repository import Gst
    Gst.init(None)
    pipeline = Gst.parse_launch("wansrc prompt=… ! …")
"""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent
PLUGINS = ROOT / "lib" / "gstreamer-1.0"
PRESETS = ROOT / "share" / "gstreamer-1.0" / "presets"
ENGINE = ROOT / "lib" / "gst-wan" / "libwan-engine.so"
WORKER = ROOT / "lib" / "gst-wan" / "gst-wan-worker"
MODELS = ROOT / "share" / "gst-wan" / "models"


def environment(variables=os.environ):
    """The variables that GStreamer finds the element by, with what `variables` has of them behind."""
    def first(path, name):
        others = [other for other in variables.get(name, "").split(":") if other not in ("", str(path))]
        return ":".join([str(path), *others])

    return {name: first(path, name) for name, path in (("GST_PLUGIN_PATH", PLUGINS), ("GST_PRESET_PATH", PRESETS))}


def _register():
    os.environ.update(environment())
    gst = sys.modules.get("gi.repository.Gst")
    if gst and gst.is_initialized():  # too late for the environment
        gst.Registry.get().scan_path(str(PLUGINS))


_register()
