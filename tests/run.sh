#!/usr/bin/env bash
# Installs and builds what is missing (see tools/setup.sh) and tests it. The last line is "N passed, N failed".
#
#     bash tests/run.sh          every test, and the unit tests a second time under AddressSanitizer and
#                                UndefinedBehaviorSanitizer
#     bash tests/run.sh quick    the loop while one works: the suites unit, parity and element
#
# SPDX-License-Identifier: LGPL-2.1-or-later
source "$(dirname "$0")/../tools/setup.sh"

# LibTorch and GLib keep what they allocate once, which the leak checker takes for leaks.
export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
# Tests run side by side; threads that spin while they wait would take the cores from each other.
export OMP_WAIT_POLICY=passive

# run_tests DIR ARGUMENT...: what is built already. More tests than processors, since those of servers and browsers mostly
# wait.
run_tests() {
  say "Testing $1"
  rm -f "$root/$1/meson-logs/testlog.json"
  meson test -C "$root/$1" --no-rebuild --num-processes $(($(nproc) + 2)) --print-errorlogs "${@:2}" || true
}

# Adds up the tests of all the builds; one that ran none counts as a failure.
count() {
  python3 - "${@/%//meson-logs/testlog.json}" <<'PYTHON'
import json, os, sys

passed = failed = 0
for log in sys.argv[1:]:
    results = [json.loads(line)["result"] for line in open(log)] if os.path.exists(log) else []
    failures = [r for r in results if r not in ("OK", "SKIP", "EXPECTEDFAIL")]
    failed += len(failures) if results else 1
    passed += len([r for r in results if r in ("OK", "EXPECTEDFAIL")])
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
PYTHON
}

case ${1:-} in
  '' | quick) ;;
  *) fail "tests/run.sh takes nothing or \"quick\", not \"$1\"" ;;
esac

install_packages "${build_packages[@]}" "${run_packages[@]}" "${test_packages[@]}"
install_libtorch
install_wheel_tools
find_nvcc
# The kernels of every architecture are compiled and looked at, though at most one can run here.
configure build -Dtests=true -Dgpu_archs=80,86,89,90,100,120

if [ "${1:-}" = quick ]; then
  build build quick-tests
  run_tests build --suite unit --suite parity --suite element
  count "$root/build"
  exit
fi

build build
configure build-asan -Dtests=true -Dcuda=disabled -Db_sanitize=address,undefined -Db_lundef=false -Doptimization=1 \
  -Dcpp_args=-Wno-maybe-uninitialized  # false alarms in LibTorch's headers, which the sanitizers bring about
# While tests wait, processors compile.
with_fixed_addresses nice -n 19 ninja -C "$root/build-asan" unit-tests >"$root/build-asan/build.log" 2>&1 &
asan_build=$!
run_tests build
say "Building build-asan"
wait $asan_build || fail "the build failed:"$'\n'"$(tail -n 100 "$root/build-asan/build.log")"
run_tests build-asan --suite unit

count "$root/build" "$root/build-asan"
