#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Makes the wheel of gst-wan and its source distribution, from the sources that are there.
# usage: tools/wheel.sh OUT [MESON-OPTION...]           as tools/wheel.sh dist, for every architecture of GPUs
#
# A wheel for people is built on the oldest system that it is for (Debian 12). It has the platform's tag by auditwheel:
# LibTorch, GStreamer and GLib stay out, libunistring, which has another name in each Debian, comes in.
# WAN_OBJECTS=DIR: a build, whose objects are taken where their commands are the same, so that only linking is left.
source "$(dirname "$0")/setup.sh"
out=$(realpath -m "${1:?usage: wheel.sh OUT [MESON-OPTION...]}")
options=("${@:2}")

if [ -z "${WAN_OBJECTS:-}" ]; then
  install_packages "${build_packages[@]}"
  install_libtorch
  find_nvcc
  # A later option stands over an earlier; without kernels for GPUs nobody would want it.
  options=("-Dgpu_archs=80,86,89,90,100,120" -Dcuda=enabled "${options[@]}")
fi
install_wheel_tools

# A directory beside build/, since paths in the commands are relative.
build=$root/build-wheel
work=$(mktemp -d)
trap 'rm -rf "$work" "$build"' EXIT
rm -rf "$build"
mkdir "$build"
[ -z "${WAN_OBJECTS:-}" ] || take_objects "$WAN_OBJECTS" "$build"

settings=(-Csetup-args="-Dlibtorch=$(realpath "${LIBTORCH:-$deps/libtorch}")")
for option in "${options[@]}"; do settings+=(-Csetup-args="$option"); done
PATH=$PATH:$wheel_tools/bin
make() { "$wheel_tools/bin/python" -m build --no-isolation --skip-dependency-check --outdir "$work" "$@" "$root"; }
# LibTorch is not in the tools' Python, and is named instead.
make --wheel -Cbuild-dir="$build" "${settings[@]}"

# Nothing in it is for one Python alone, which meson-python takes for granted.
"$wheel_tools/bin/python" -m wheel tags --remove --python-tag py3 --abi-tag none "$work"/*.whl
mkdir -p "$out"
"$wheel_tools/bin/auditwheel" repair --wheel-dir "$out" \
  --exclude 'libtorch*' --exclude 'libc10*' --exclude 'libgst*' --exclude 'libg*-2.0.so.0' "$work"/*.whl
# Meson takes its files from git.
if [ -e "$root/.git" ]; then
  make --sdist "${settings[@]}"
  mv "$work"/*.tar.gz "$out"
fi
