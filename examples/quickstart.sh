#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes wan.mp4 of a prompt, or of a picture and a prompt, here:
#   bash examples/quickstart.sh ["prompt"]
#   bash examples/quickstart.sh --image examples/photo.jpg ["prompt"]
# Or plays an endless video, which shows what is typed: in a window, or where there is no display in a browser:
#   bash examples/quickstart.sh --live ["prompt"]
# Installs and builds what is missing first (Debian 12 or 13; see tools/setup.sh).
source "$(dirname "$0")/../tools/setup.sh"

# As gst-launch-1.0 wants a text.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# Not `meson devenv COMMAND`, which answers Ctrl-C with a traceback.
enter_devenv() {
  set +u
  eval "$(meson devenv -C "$root/build" --dump)"
}

# Each line that comes in is the next prompt.
play_in_window() {
  enter_devenv
  say "Type what the video shows next, and press Enter. Ctrl-C ends it."
  exec gst-launch-1.0 -q fdsrc ! text/x-raw,format=utf8 ! wan.prompt_sink \
    wansrc name=wan is-live=true num-clips=-1 "${settings[@]}" ! videoconvert ! \
    videoscale ! video/x-raw,width=640,pixel-aspect-ratio=1/1 ! autovideosink
}

serve_studio() {
  enter_devenv
  say "Open it in a browser on this machine, and type. Ctrl-C ends it; examples/live-studio/README.md says more."
  exec "$root/build/examples/live-studio/live-studio" --recordings "$PWD" --prompt "$prompt"
}

settings=() prompt="a red circle bouncing on a blue background" live=
if [ "${1-}" = --image ]; then
  image=${2:?usage: quickstart.sh --image FILE ["prompt"]}
  [ -r "$image" ] || fail "the picture $image cannot be read"
  shift 2
  run_packages+=(gstreamer1.0-plugins-bad)  # its jpegparse turns photographs upright
  settings=("model=$(quoted "$root/models/wan-tiny-ti2v")" "image=$(quoted "$image")") prompt="camera zooms in"
elif [ "${1-}" = --live ]; then
  shift
  if [ -n "${DISPLAY-}${WAYLAND_DISPLAY-}" ]; then
    live=window
    run_packages+=(gstreamer1.0-x)
  else
    live=studio
    build_packages+=(libsoup-3.0-dev libgstreamer-plugins-bad1.0-dev)
    run_packages+=(gstreamer1.0-plugins-bad gstreamer1.0-nice)
  fi
fi
prompt=${1:-$prompt}
settings+=("prompt=$(quoted "$prompt")")

install_packages "${build_packages[@]}" "${run_packages[@]}"
install_libtorch
find_nvcc
# Configured before there were its libraries, a build has no studio.
if [ "$live" = studio ] && ! grep -qs live-studio "$root/build/build.ninja"; then rm -f "$root/build/options"; fi
# A build that has the tests keeps them.
configure build "$(grep -os -- '-Dtests=true' "$root/build/options" || echo -Dtests=false)"
build build

case $live in
  window) play_in_window ;;
  studio) serve_studio ;;
esac

(
  PS4='$ '
  set -x
  meson devenv -C "$root/build" -w "$PWD" gst-launch-1.0 -e \
    wansrc "${settings[@]}" ! videoconvert ! x264enc ! mp4mux ! filesink location=wan.mp4
) || fail "no video was made; the message above says why"

say "The video is $PWD/wan.mp4"
echo "Look at it with ffplay, mpv, vlc or a browser:  xdg-open wan.mp4"
