#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A wheel on machines that have nothing but GStreamer and python3-venv: bare chroots of Debian 12 and 13.
# As root, with Debian's debootstrap: bash tests/package/bare.sh WHEEL [SUITE...]
#
# pip takes PyTorch from PyPI, with its CUDA libraries (3 GB to download, 7 GB on disk, for each suite). Chroots stay, in
# WAN_CHROOTS or .deps/chroots; what pip installs does not. Not part of the tests that Meson runs, which need no root.
set -euo pipefail

# Inside of a chroot.
if [ "${WAN_BARE_INSIDE:-}" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  cd "$work"
  ! command -v c++ cc gcc meson || exit 1
  python3 -m venv wan
  wan/bin/pip --disable-pip-version-check install --quiet --no-cache-dir "$1"
  wan/bin/gst-wan doctor
  wan/bin/gst-wan launch -q -e wansrc prompt="a red circle bouncing on a blue background" ! videoconvert ! x264enc ! mp4mux ! \
    filesink location=out.mp4
  wan/bin/gst-wan launch -q filesrc location=out.mp4 ! qtdemux ! fakesink
  ls -l out.mp4
  wan/bin/pip uninstall --quiet --yes gst-wan
  find wan -path '*gst*wan*' | { ! grep .; }
  exit
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
wheel=$(realpath "${1:?usage: bare.sh WHEEL [SUITE...]}")
suites=("${@:2}")
[ ${#suites[@]} -gt 0 ] || suites=(bookworm trixie)
chroots=${WAN_CHROOTS:-$root/.deps/chroots}

# What docs/install.md asks for.
packages=(python3-venv gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly)

# install SUITE: the settings of apt and the certificates for pip are those of this machine, which may need a proxy.
install() {
  local chroot=$chroots/bare-$1
  [ -e "$chroot/usr/bin/gst-inspect-1.0" ] && return
  mkdir -p "$chroots"
  debootstrap --variant=minbase --include=ca-certificates "$1" "$chroot"
  cp /etc/resolv.conf "$chroot/etc/"
  cp /etc/apt/apt.conf.d/* "$chroot/etc/apt/apt.conf.d/"
  cp /etc/ssl/certs/ca-certificates.crt "$chroot/etc/ssl/certs/"
  chroot "$chroot" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive chroot "$chroot" apt-get install -qq -y --no-install-recommends "${packages[@]}"
}

# enter SUITE: in a mount namespace, so that nothing stays mounted.
enter() {
  unshare -m bash -euc '
    chroot=$1 script=$2 wheel=$3
    mount --rbind /dev "$chroot/dev"
    mount -t proc proc "$chroot/proc"
    mkdir -p "$chroot/mnt"
    mount -t tmpfs tmpfs "$chroot/mnt"
    cp "$script" "$wheel" "$chroot/mnt/"
    exec chroot "$chroot" env WAN_BARE_INSIDE=1 bash "/mnt/${script##*/}" "/mnt/${wheel##*/}"' \
    bash "$chroots/bare-$1" "${BASH_SOURCE[0]}" "$wheel"
}

for suite in "${suites[@]}"; do
  install "$suite" >&2
  echo "== $suite"
  enter "$suite"
done
