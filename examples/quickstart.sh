#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes wan.mp4 of a prompt, or of a picture and a prompt, here:
#   bash examples/quickstart.sh ["prompt"]
#   bash examples/quickstart.sh --image examples/photo.jpg ["prompt"]
# Installs and builds what is missing first (Debian 12 or 13; see tools/setup.sh).
source "$(dirname "$0")/../tools/setup.sh"

# As gst-launch-1.0 wants a text.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

settings=() prompt="a red circle bouncing on a blue background"
if [ "${1-}" = --image ]; then
  image=${2:?usage: quickstart.sh --image FILE ["prompt"]}
  [ -r "$image" ] || fail "the picture $image cannot be read"
  shift 2
  run_packages+=(gstreamer1.0-plugins-bad)  # its jpegparse turns photographs upright
  settings=("model=$(quoted "$root/models/wan-tiny-ti2v")" "image=$(quoted "$image")") prompt="camera zooms in"
fi
settings+=("prompt=$(quoted "${1:-$prompt}")")

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
    wansrc "${settings[@]}" ! videoconvert ! x264enc ! mp4mux ! filesink location=wan.mp4
) || fail "no video was made; the message above says why"

say "The video is $PWD/wan.mp4"
echo "Look at it with ffplay, mpv, vlc or a browser:  xdg-open wan.mp4"
