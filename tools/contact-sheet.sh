#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes a picture of videos by wansrc, a row of five frames for each prompt, from the build in build/.
# usage: tools/contact-sheet.sh OUT.png PROMPT...       (needs ffmpeg; SEED is the first row's seed, 1 if not set)
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: contact-sheet.sh OUT.png PROMPT...}
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

seed=${SEED:-1} row=0
for prompt; do
  meson devenv -C "$root/build" -w "$work" gst-launch-1.0 -q wansrc prompt="\"$prompt\"" seed="$seed" device=cpu ! \
    video/x-raw,format=RGB ! pngenc ! multifilesink location="$work/%03d.png"
  ffmpeg -v error -y -i "$work/%03d.png" -vf \
    "select='not(mod(n,8))',tile=5x1:padding=2,pad=iw:ih+16:0:16:white,drawtext=text='$prompt':x=4:y=2:fontsize=12" \
    -frames:v 1 "$work/row-$(printf %02d $row).png"
  seed=$((seed + 1)) row=$((row + 1))
done
ffmpeg -v error -y -i "$work/row-%02d.png" -vf "tile=1x$row" -frames:v 1 -update 1 "$out"
