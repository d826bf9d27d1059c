#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Runs the element's threads under ThreadSanitizer: bash tests/tsan.sh [ROUNDS [SEED]]
#
# GLib's and GStreamer's locks are futexes, which ThreadSanitizer does not see, so the whole element would give false
# alarms without end. What has threads of its own (plugin/frame_pump, plugin/model_pool, plugin/prompt_track) uses std::mutex only and
# takes no locks of GLib: that is built here with the stub engine, everything instrumented and nothing suppressed.
# The engine's own threads have tests/tsan/engine_test.cpp, which Meson builds.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sources=("$root"/tests/tsan/pump_test.cpp "$root"/tests/element/stub_engine.cpp
  "$root"/plugin/{clip_planner,clip_settings,endless_pump,enums,frame_pump,model_pool,picture,picture_track,prompt_track,values}.cpp)
objects=()
read -ra cflags < <(pkg-config --cflags gstreamer-base-1.0 gstreamer-video-1.0)
read -ra libs < <(pkg-config --libs gstreamer-base-1.0 gstreamer-video-1.0)
for source in "${sources[@]}"; do
  object=$work/$(basename "$source").o
  ${CXX:-c++} -std=c++20 -O1 -g -fsanitize=thread -DSTUB_ABI=WAN_ENGINE_ABI -I"$root/src" -I"$root/plugin" -I"$root/tests" "${cflags[@]}" \
    -c "$source" -o "$object"
  objects+=("$object")
done
${CXX:-c++} -fsanitize=thread "${objects[@]}" "${libs[@]}" -o "$work/pump_test"

# A fixed layout of the memory: kernels that spread it wide leave no room for the shadow of older ThreadSanitizers.
run=()
setarch -R true 2>/dev/null && run=(setarch -R)
TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1 "${run[@]}" "$work/pump_test" "${1:-20}" "${@:2}"
