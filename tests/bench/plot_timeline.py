#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws two steady chunks of two decodes as an SVG, one above the other.

  wan-bench decode --mode sync --trace sync.json
  wan-bench decode --mode async --trace async.json
  plot_timeline.py sync.json async.json timeline.svg
"""
import json
import sys
from xml.sax.saxutils import escape

ROWS = ["GPU: compute", "GPU: copies", "host: decoder", "host: frames"]
TITLES = {"sync": "One after the other", "async": "Asynchronous"}
# Of the GPU, the colour says which chunk the work belongs to; of the host, what it does.
CHUNK_COLORS = ["#2f6fb7", "#e08a1e"]
OTHER_CHUNK = "#9aa5b1"
HOST_COLORS = {"launch": "#3f9b6c", "push": "#8ecfae", "wait and copy": "#c9ced6", "hand over": "#8a63b8"}

WIDTH, LEFT, RIGHT = 960, 130, 20
PLOT = WIDTH - LEFT - RIGHT
ROW_HEIGHT, ROW_STEP, TITLE_HEIGHT, PANEL_GAP, LEGEND_HEIGHT = 24, 32, 30, 18, 34
PANEL_HEIGHT = TITLE_HEIGHT + ROW_STEP * len(ROWS) + 24 + PANEL_GAP


def window(trace):
    """From the first kernel of the trace's first chunk to that of its third (on the CPU: from launch to launch)."""
    lane = "kernel" if any(i["lane"] == "kernel" for i in trace["intervals"]) else "decoder"
    begin = lambda chunk: min(i["start_us"] for i in trace["intervals"] if i["lane"] == lane and i["chunk"] == chunk)
    return begin(trace["first_chunk"]), begin(trace["first_chunk"] + 2)


def row_of(interval):
    if interval["lane"] in ("decoder", "frames"):
        return "host: " + interval["lane"]
    across = interval["name"] in ("copy to the host", "copy to the device")
    return "GPU: copies" if across else "GPU: compute"


def merged(intervals, least_gap):
    """Neighbours of one colour, with gaps too small to be seen closed."""
    bars = []
    for start, end, color in sorted(intervals):
        if bars and bars[-1][2] == color and start - bars[-1][1] < least_gap:
            bars[-1][1] = max(bars[-1][1], end)
        else:
            bars.append([start, end, color])
    return bars


def color_of(interval, first_chunk):
    if interval["lane"] in ("decoder", "frames"):
        return HOST_COLORS[interval["name"]]
    index = interval["chunk"] - first_chunk
    return CHUNK_COLORS[index] if 0 <= index < len(CHUNK_COLORS) else OTHER_CHUNK


def text(x, y, content, size=12, anchor="start", weight="normal", color="#24292f"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{color}">{escape(content)}</text>')


def rectangle(x, y, width, height, color):
    return f'<rect x="{x:.2f}" y="{y:.1f}" width="{width:.2f}" height="{height}" fill="{color}"/>'


def row(trace, name, start, end, scale, top):
    bars = [(max(i["start_us"], start), min(i["end_us"], end), color_of(i, trace["first_chunk"]))
            for i in trace["intervals"] if row_of(i) == name and i["end_us"] > start and i["start_us"] < end]
    svg = [rectangle(LEFT, top, PLOT, ROW_HEIGHT, "#f2f4f7")]
    for bar_start, bar_end, color in merged(bars, 0.4 / scale):
        width = max((bar_end - bar_start) * scale, 0.6)  # what happened shows, however short it was
        svg.append(rectangle(LEFT + (bar_start - start) * scale, top, width, ROW_HEIGHT, color))
    return svg


def axis(milliseconds, scale, top):
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if milliseconds / s <= 12)
    svg = []
    for i in range(int(milliseconds / step) + 1):
        x = LEFT + i * step * 1000 * scale
        svg.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + 5}" stroke="#57606a"/>')
        svg.append(text(x, top + 18, f"{i * step}" + (" ms" if i == 0 else ""), 11, "middle", color="#57606a"))
    return svg


def panel(trace, scale, top):
    start, end = window(trace)
    milliseconds = (end - start) / 1000
    svg = [text(LEFT, top + 18, f"{TITLES[trace['mode']]}: {milliseconds / 2:.1f} ms a chunk", 14, weight="600")]
    top += TITLE_HEIGHT
    end_of_plot = start + PLOT / scale  # the shorter of two timelines goes on
    for name in ROWS:
        svg.append(text(LEFT - 10, top + 16, name, anchor="end"))
        svg += row(trace, name, start, end_of_plot, scale, top)
        top += ROW_STEP
    x = LEFT + (end - start) * scale
    svg.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - ROW_STEP * len(ROWS) - 3}" y2="{top - 4}" '
               'stroke="#cf222e" stroke-dasharray="4 3"/>')
    svg.append(text(x, top - ROW_STEP * len(ROWS) - 7, "two chunks", 11, "end", color="#cf222e"))
    return svg + axis(PLOT / scale / 1000, scale, top - 4)


def legend(top):
    entries = [("chunk n", CHUNK_COLORS[0]), ("chunk n + 1", CHUNK_COLORS[1]), ("other chunks", OTHER_CHUNK)]
    entries += [("host: " + name, color) for name, color in HOST_COLORS.items()]
    svg, x = [], LEFT
    for label, color in entries:
        svg += [rectangle(x, top, 11, 11, color), text(x + 16, top + 10, label, 11)]
        x += 28 + 6.2 * len(label)
    return svg


def draw(traces):
    scale = PLOT / max(end - start for start, end in map(window, traces))
    height = LEGEND_HEIGHT + PANEL_HEIGHT * len(traces)
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
           rectangle(0, 0, WIDTH, height, "#ffffff")]
    for i, trace in enumerate(traces):
        svg += panel(trace, scale, 6 + PANEL_HEIGHT * i)
    return svg + legend(height - LEGEND_HEIGHT + 8) + ["</svg>"]


def main(*paths):
    *inputs, output = paths
    traces = []
    for path in inputs:
        with open(path) as file:
            traces.append(json.load(file))
    with open(output, "w") as file:
        file.write("\n".join(draw(traces)) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
