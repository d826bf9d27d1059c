#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Whole pipelines: seconds of each clip's decoding and of its first frame, as the element says, beside wan-bench's.
#
#   python3 tests/pipelines/make_bench_model.py DIR
#   tests/pipelines/bench.sh DIR [SECONDS]
#
# SECONDS: what wan-bench took for a decode on this machine just now. WIDTH, HEIGHT, FRAMES, CLIPS and DEVICE in the
# environment replace 1280, 720, 161, 5 and auto. The first clip of each pipeline warms up and does not count. GStreamer
# must find wansrc (meson devenv -C build, or GST_PLUGIN_PATH and GST_WAN_ENGINE).
set -euo pipefail

model=${1:?usage: bench.sh MODEL [SECONDS]}
reference=${2:-}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

source=(wansrc "model=$model" "device=${DEVICE:-auto}" "num-frames=${FRAMES:-161}" "num-clips=${CLIPS:-5}" steps=1
  guidance-scale=1 seed=1 !
  "video/x-raw,format=NV12,width=${WIDTH:-1280},height=${HEIGHT:-720},framerate=16/1")

# summarize NAME, from the output of gst-launch-1.0 -m -v
summarize() {
  awk -v name="$1" -v reference="$reference" '
    function field(key) { return match($0, key "=\\([a-z0-9]*\\)[^,;]*") ? substr($0, RSTART, RLENGTH) : "" }
    function value(key,  text) { text = field(key); sub(/.*\)/, "", text); return text + 0 }
    / stats = / { first[value("clip")] = value("first-frame-seconds"); pinned = value("pinned-bytes") }
    /wan-progress/ && /stage=\(string\)decode/ && value("step") == value("steps") { decode[value("clip")] = value("seconds") }
    END {
      for (clip = 1; clip in decode; ++clip) {
        ++clips
        total += decode[clip]
        latency += first[clip]
        if (clips == 1 || decode[clip] < best) best = decode[clip]
      }
      if (!clips) { print name ": no clip was made" > "/dev/stderr"; exit 1 }
      printf "%-28s %8.4f %8.4f", name, total / clips, best
      if (reference) printf " %8.4f", total / clips / reference
      else printf " %8s", "-"
      printf " %12.4f %10.1f\n", latency / clips, pinned / 1e6
    }'
}

# bench NAME ELEMENT...
bench() {
  gst-launch-1.0 -m -v "${source[@]}" ! "${@:2}" >"$out/log" 2>&1 || {
    tail -n 5 "$out/log" >&2
    return 1
  }
  summarize "$1" <"$out/log"
}

printf '%-28s %8s %8s %8s %12s %10s\n' pipeline mean_s min_s ratio first_frame_s pinned_MB
bench fakesink fakesink
bench filesink filesink "location=$out/video.nv12"
rm -f "$out/video.nv12"
bench 'x264enc mp4mux filesink' x264enc speed-preset=ultrafast ! mp4mux ! filesink "location=$out/video.mp4"
