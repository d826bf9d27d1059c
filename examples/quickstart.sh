#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes wan.mp4 of a prompt, here: bash examples/quickstart.sh ["prompt"]
# Installs and builds what is missing first (Debian 12 or 13; see tools/setup.sh).
source "$(dirname "$0")/../tools/setup.sh"

prompt=${1:-a red circle bouncing on a blue background}
prompt=${prompt//\\/\\\\} prompt=${prompt//\"/\\\"}  # as gst-launch-1.0 wants it between quotes

install_packages "${build_packages[@]}" "${run_packages[@]}"
install_libtorch
find_nvcc
# A build that has the tests keeps them.
configure build "$(grep -os -- '-Dtests=true' "$root/build/options" || echo -Dtests=false)"
build build

(
  PS4='$ '
  set -x
  meson devenv -C "$root/build" -w "$PWD" gst-launch-1.0 -e \
    wansrc "prompt=\"$prompt\"" ! videoconvert ! x264enc ! mp4mux ! filesink location=wan.mp4
) || fail "no video was made; the message above says why"

say "The video is $PWD/wan.mp4"
echo "Look at it with ffplay, mpv, vlc or a browser:  xdg-open wan.mp4"
