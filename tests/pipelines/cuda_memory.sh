#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Frames that stay on the GPU, in pipelines of GStreamer's CUDA elements: they are those that come to host memory, byte for
# byte. Needs a GPU and GStreamer's nvcodec plugin, else it is skipped (exit status 77). GStreamer must find wansrc (meson
# devenv -C build, or GST_PLUGIN_PATH, GST_WAN_ENGINE and GST_WAN_MODEL).
set -euo pipefail

gst-inspect-1.0 --exists cudadownload || {
  echo "skipped: no GPU, or no nvcodec plugin"
  exit 77
}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
failed=0

source=(wansrc device=cuda seed=1 num-frames=9 steps=2 num-clips=2)
size=width=176,height=96,framerate=16/1  # of a width that the rows in GPU memory are longer than
cuda='video/x-raw(memory:CUDAMemory)'

# launch ELEMENT...: messages and caps go to $out/log
launch() { timeout 120 gst-launch-1.0 -m -v "$@" >"$out/log" 2>&1; }

# check NAME COMMAND...
check() {
  if "${@:2}"; then
    echo "ok      $1"
  else
    echo "FAILED  $1"
    tail -n 8 "$out/log"
    failed=1
  fi
}

# same_bytes FORMAT [PROPERTY...]: of both pipelines
same_bytes() {
  launch "${source[@]}" "${@:2}" ! "video/x-raw,format=$1,$size" ! filesink "location=$out/system" &&
    launch "${source[@]}" "${@:2}" ! "$cuda,format=$1,$size" ! cudadownload ! "video/x-raw,format=$1" ! \
      filesink "location=$out/cuda" && [ -s "$out/cuda" ] && cmp "$out/system" "$out/cuda" >>"$out/log" 2>&1
}

# A change of the order of bytes, which loses nothing.
same_after_cudaconvert() {
  launch "${source[@]}" ! "video/x-raw,format=BGRA,$size" ! filesink "location=$out/system" &&
    launch "${source[@]}" ! "$cuda,format=RGBA,$size" ! cudaconvert ! "$cuda,format=BGRA" ! cudadownload ! \
      "video/x-raw,format=BGRA" ! filesink "location=$out/cuda" && [ -s "$out/cuda" ] &&
    cmp "$out/system" "$out/cuda" >>"$out/log" 2>&1
}

# Neighbours that have to make a context of their own tell so, and then copy through the host.
one_context() {
  launch "${source[@]}" ! "$cuda,format=NV12,$size" ! cudadownload ! fakesink && ! grep -q 'have-context' "$out/log"
}

negotiates() { launch "${source[@]}" ! "$@" && grep -q 'GstWanSrc:.*src: caps = video/x-raw(memory:CUDAMemory)' "$out/log"; }

stays_in_system_memory() { launch "${source[@]}" ! "$@" && ! grep -q 'CUDAMemory' "$out/log"; }

is_refused() { ! launch "$@" && grep -q 'not-negotiated\|could not link\|not negotiate' "$out/log"; }

# Fillers before the first frame and repeated frames are in GPU memory, too; as many buffers come as were paced.
live() {
  launch "${source[@]}" is-live=true ! "$cuda,format=NV12,$size" ! cudadownload ! "video/x-raw,format=NV12" ! \
    filesink "location=$out/live" && [ $(($(stat -c %s "$out/live") % (176 * 96 * 3 / 2))) = 0 ] &&
    [ "$(stat -c %s "$out/live")" -ge $((18 * 176 * 96 * 3 / 2)) ]
}

for format in NV12 I420 RGB RGBx BGRx RGBA BGRA; do
  check "$format is the same as in system memory" same_bytes "$format"
done
check "a crossfade is the same as in system memory" same_bytes NV12 transition=crossfade transition-frames=3
check "the CUDA element behind takes wansrc's context" one_context
check "caps with nothing but the memory's kind" negotiates "$cuda" ! fakesink
check "a sink that takes anything gets system memory" stays_in_system_memory fakesink
check "a converter that passes anything gets system memory" stays_in_system_memory videoconvert ! fakesink
check "a model on the CPU has no such frames" is_refused "${source[0]}" device=cpu ! "$cuda" ! fakesink
check "live, with fillers" live
if gst-inspect-1.0 --exists cudaconvert; then
  check "cudaconvert's bytes are the same, too" same_after_cudaconvert
  check "cudaconvert takes them" negotiates "$cuda,format=NV12,$size" ! cudaconvert ! "$cuda,format=RGBA" ! \
    cudadownload ! fakesink
  check "cudaconvert negotiates them by itself" negotiates cudaconvert ! "$cuda,format=NV12,$size" ! fakesink
else
  echo "skipped cudaconvert: it is not there (GStreamer 1.22's needs NVRTC 11 or 12, see GST_CUDA_NVRTC_LIBNAME)"
fi
if gst-inspect-1.0 --exists nvh264enc; then
  check "nvh264enc takes them" negotiates "$cuda,format=NV12,width=320,height=192" ! nvh264enc ! fakesink
else
  echo "skipped nvh264enc: this GPU has no encoder"
fi
exit $failed
