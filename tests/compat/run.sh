#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Newer Debians, each in a chroot of its own packages. The plugin that was built here (Debian 12, GStreamer 1.22) runs
# there, and then tests/run.sh builds and tests a copy of the sources with that Debian's compiler and GStreamer.
# As root, with the tests built: bash tests/compat/run.sh [BUILD [SUITE...]]
#
# The suites are trixie (GStreamer 1.26) and forky (1.28) unless said otherwise. A chroot takes 6 GB and stays, in
# WAN_CHROOTS or .deps/chroots; LibTorch is the one that is used here. Needs Debian's debootstrap. Not part of the tests
# that Meson runs, which need no root.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Inside of a chroot, where the build has the path that it has outside.
if [ "${WAN_COMPAT_INSIDE:-}" ]; then
  build=$1
  export GST_PRESET_PATH=$root/plugin/presets
  export GST_PLUGIN_PATH=$build/plugin GST_REGISTRY=/tmp/wan.registry GST_WAN_ENGINE=$build/src/libwan-engine.so
  export GST_WAN_MODEL=$root/models/wan-tiny LD_LIBRARY_PATH=/tmp/wan-lib OMP_WAIT_POLICY=passive
  export WAN_TEST_STUB_ENGINE=$build/tests/element/libstub-engine.so
  export WAN_TEST_OTHER_ABI_ENGINE=$build/tests/element/libother-abi-engine.so
  export WAN_TEST_PLUGIN=$build/plugin/libgstwan.so
  log=/tmp/wan.log
  result() { printf '%-24s %s\n' "$1" "$2"; }
  # try NAME COMMAND...: the log of what fails is shown.
  try() {
    local name=$1 status=0
    shift
    "$@" >$log 2>&1 || status=$?
    [ $status = 0 ] && result "$name" passed && return
    result "$name" "FAILED (exit status $status)"
    cat $log
    exit_status=1
  }
  exit_status=0

  gst-inspect-1.0 --version | sed -n 's/^GStreamer /GStreamer /p'
  try gst-inspect-1.0 gst-inspect-1.0 wansrc
  for test in "$build"/tests/element/*_test; do
    name=$(basename "$test")
    GST_TRACERS=leaks G_DEBUG=fatal-warnings try "$name" "$test" --gtest_brief=1
    grep -E '^\[  (PASSED|SKIPPED) ' $log || true
  done
  try soak "$build/tests/soak/soak" --seconds=15
  tail -n +2 $log
  try storm "$build/tests/storm/storm" --seconds=60
  live=(wansrc is-live=true num-clips=-1 num-frames=9 steps=1 ! "video/x-raw,width=64,height=48" ! videoconvert !
    x264enc tune=zerolatency ! h264parse ! matroskamux ! filesink location=/tmp/wan.mkv)
  try "live pipeline" timeout --foreground --preserve-status -s INT 5 gst-launch-1.0 -e "${live[@]}"
  try "its file" gst-launch-1.0 filesrc location=/tmp/wan.mkv ! matroskademux ! h264parse ! fakesink
  exit $exit_status
fi

build=$(cd "${1:-$root/build}" && pwd)
suites=("${@:2}")
[ ${#suites[@]} -gt 0 ] || suites=(trixie forky)
chroots=${WAN_CHROOTS:-$root/.deps/chroots}
# The wheel of LibTorch wants the other wheels beside it.
libtorch=${LIBTORCH:-$root/.deps/libtorch} libtorch_home=$(readlink -f "${LIBTORCH:-$root/.deps}")
packages=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
  gstreamer1.0-plugins-ugly gstreamer1.0-x xvfb)

# install SUITE: apt's settings are those of this machine, which may need a proxy.
install() {
  local chroot=$chroots/$1 script=()
  [ -e "$chroot/usr/bin/gst-inspect-1.0" ] && return
  # A debootstrap that is older than the suite does it as for sid.
  [ -e "/usr/share/debootstrap/scripts/$1" ] || script=("" /usr/share/debootstrap/scripts/sid)
  mkdir -p "$chroots"
  debootstrap --variant=minbase --include=ca-certificates "$1" "$chroot" "${script[@]}"
  cp /etc/resolv.conf "$chroot/etc/"
  cp /etc/apt/apt.conf.d/* "$chroot/etc/apt/apt.conf.d/"
  chroot "$chroot" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive chroot "$chroot" apt-get install -qq -y --no-install-recommends "${packages[@]}"
}

# enter SUITE COMMAND...: in a mount namespace, so that nothing stays mounted.
enter() {
  local chroot=$chroots/$1
  unshare -m bash -euc '
    chroot=$1 root=$2 libtorch_home=$3; shift 3
    for path in /dev "$root" "$libtorch_home"; do
      mkdir -p "$chroot/$path"
      mount --rbind "$path" "$chroot/$path"
    done
    mount -t proc proc "$chroot/proc"
    mount -t tmpfs tmpfs "$chroot/tmp"
    # The engine was linked with a libunistring that newer Debians do not have.
    mkdir "$chroot/tmp/wan-lib"
    cp -L "$(ldconfig -p | sed -n "s/.*libunistring.so.2 .*=> //p" | head -n 1)" "$chroot/tmp/wan-lib/"
    exec chroot "$chroot" "$@"' bash "$chroot" "$root" "$libtorch_home" "${@:2}"
}

# copy_sources SUITE: what is built there already stays. What has changed gets the time of the copy, since it may be
# older than what was built there from the version before.
copy_sources() {
  local copy=$chroots/$1/root/gst-wan file
  mkdir -p "$copy"
  find "$copy" -path "$copy/build*" -prune -o -type f -print | while read -r file; do
    [ -e "$root/${file#"$copy"/}" ] || rm "$file"
  done
  git -C "$root" ls-files -z --cached --others --exclude-standard | while read -rd '' file; do
    [ ! -e "$root/$file" ] || cmp -s "$root/$file" "$copy/$file" || install -D "$root/$file" "$copy/$file"
  done
}

status=0
for suite in "${suites[@]}"; do
  install "$suite" >&2
  echo "== $suite, built here"
  enter "$suite" env WAN_COMPAT_INSIDE=1 bash "$root/tests/compat/run.sh" "$build" || status=1
  echo "== $suite, built there"
  copy_sources "$suite"
  enter "$suite" env LIBTORCH="$libtorch" bash /root/gst-wan/tests/run.sh || status=1
done
exit $status
