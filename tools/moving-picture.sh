#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes an animated picture of videos by wansrc, side by side, from the build in build/; README begins with one.
# usage: tools/moving-picture.sh OUT.webp [--image FILE] PROMPT...
#   Prompts after --image begin with that picture, which is shown beside them, and are made by the model that takes pictures
#   (MODEL, models/wan-tiny-ti2v if not set). `--image ''` goes back to the embedded model. Needs ffmpeg; SEED is that of the
#   first video, 1 if not set.
#
#   tools/moving-picture.sh docs/wan.webp --image examples/photo.jpg "camera zooms in" "moving to the left" \
#     --image '' "a red circle bouncing on a blue background" "a green star spinning on a pink background" "..."
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: moving-picture.sh OUT.webp [--image FILE] PROMPT...}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
columns=3 width=240 height=144 frames=33
cell=0 seed=${SEED:-1} image=()

# add_cell CAPTION FFMPEG_INPUT...
add_cell() {
  fold -s -w 36 <<<"$1" | sed 's/ $//' >"$work/caption"
  ffmpeg -v error -y "${@:2}" -vf \
    "fps=16,scale=$width:$height:force_original_aspect_ratio=increase,crop=$width:$height,pad=iw:ih+38:0:0:white,drawtext=textfile=$work/caption:x=4:y=$((height + 5)):fontsize=12,pad=iw+4:ih+4:2:2:white" \
    -frames:v $frames -pix_fmt yuv444p "$work/$(printf %02d $cell).y4m"
  cell=$((cell + 1))
}

make_video() {
  rm -f "$work"/*.png
  meson devenv -C "$root/build" -w "$PWD" gst-launch-1.0 -q wansrc "${image[@]}" prompt="\"$1\"" seed="$seed" device=cpu ! \
    video/x-raw,format=RGB ! pngenc ! multifilesink location="$work/%03d.png"
  add_cell "$1" -framerate 16 -i "$work/%03d.png"
  seed=$((seed + 1))
}

while [ $# -gt 0 ]; do
  if [ "$1" = --image ]; then
    image=()
    if [ -n "$2" ]; then
      image=("model=${MODEL:-$root/models/wan-tiny-ti2v}" "image=$2")
      add_cell "the picture" -loop 1 -framerate 16 -i "$2"
    fi
    shift 2
  else
    make_video "$1"
    shift
  fi
done
while [ $((cell % columns)) != 0 ]; do add_cell "" -f lavfi -i "color=white:r=16"; done

inputs=() layout=
for ((i = 0; i < cell; ++i)); do
  inputs+=(-i "$work/$(printf %02d $i).y4m")
  row=$((i / columns)) column=$((i % columns))
  layout+="${layout:+|}$((column * (width + 4)))_$((row * (height + 42)))"
done
ffmpeg -v error -y "${inputs[@]}" -filter_complex "xstack=inputs=$cell:layout=$layout" \
  -c:v libwebp_anim -loop 0 -quality 60 -compression_level 6 "$out"
