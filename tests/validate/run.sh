#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# gst-validate on wansrc: bash tests/validate/run.sh [BUILD]
#
# Debian has no package of gst-validate. It is built here from the sources of gst-devtools of the GStreamer that is
# installed: from GST_DEVTOOLS=DIR, or else from GStreamer's release. GST_VALIDATE=PREFIX is an installed one.
# Not part of the tests that Meson runs, since those fetch nothing. Needs build/ (of this project) and Debian's
# libjson-glib-dev, libgstreamer-plugins-base1.0-dev, meson and curl.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$root/tests/validate
build=$(cd "${1:-$root/build}" && pwd)
prefix=${GST_VALIDATE:-$root/.deps/gst-validate}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

build_validate() {
  local version source=${GST_DEVTOOLS:-$work/source}
  version=$(pkg-config --modversion gstreamer-1.0)
  if [ -z "${GST_DEVTOOLS:-}" ]; then
    mkdir "$source"
    curl -fsSL "https://gstreamer.freedesktop.org/src/gst-devtools/gst-devtools-$version.tar.xz" |
      tar xJ -C "$source" --strip-components=1
  fi
  meson setup "$work/build" "$source" --prefix="$prefix" --libdir=lib -Dvalidate=enabled -Dcairo=disabled \
    -Dintrospection=disabled -Dtests=disabled -Dnls=disabled -Ddoc=disabled
  ninja -C "$work/build" install
}

[ -x "$prefix/bin/gst-validate-1.0" ] || build_validate >&2

export PATH=$prefix/bin:$PATH LD_LIBRARY_PATH=$prefix/lib
export GST_PLUGIN_PATH=$build/plugin GST_REGISTRY=$work/registry GST_WAN_MODEL=$root/models/wan-tiny
export GST_VALIDATE_SCENARIOS_PATH=$here GST_VALIDATE_LOGSDIR=$work/logs OMP_WAIT_POLICY=passive
failed=0

# check NAME ARGUMENT...: runs gst-validate, which fails by itself where there is a critical issue. Others are shown. One
# is known: an EOS of the application's may have another seqnum than the segment; GstBaseSrc does that, in videotestsrc too.
check() {
  local name=$1 log=$work/log status=0
  shift
  timeout 120 gst-validate-1.0 "$@" >"$log" 2>&1 || status=$?
  if [ $status = 0 ]; then
    printf 'passed  %s\n' "$name"
  else
    printf 'FAILED  %s (exit status %s)\n' "$name" $status
    cat "$log"
    failed=1
  fi
  grep 'issue : ' "$log" | sort | uniq -c || true
}

stub=$build/tests/element/libstub-engine.so real=$build/src/libwan-engine.so
for scenario in play pause_resume change_state_intensive; do
  check "$scenario, not live" wansrc engine="$stub" num-clips=100 ! fakesink sync=true --set-scenario=$scenario
  for underrun in repeat gap stall; do
    check "$scenario, live, underrun=$underrun, every clip late" wansrc engine="$stub" prompt=clip=200 \
      num-clips=-1 is-live=true underrun=$underrun ! fakesink sync=true --set-scenario=$scenario
  done
  check "$scenario, live, the model" wansrc engine="$real" num-clips=-1 is-live=true num-frames=9 steps=1 ! \
    video/x-raw,width=64,height=48 ! videoconvert ! fakesink sync=true --set-scenario=$scenario
done

export GST_WAN_ENGINE=$real
check "the first run with a seed" --set-test-file "$here/same-seed.validatetest"
check "every byte again in the second" --set-test-file "$here/same-seed.validatetest"
[ -n "$(find "$work/logs" -name '*-expected')" ] || {
  echo "FAILED  nothing was recorded"
  failed=1
}
exit $failed
