#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""tools/setup.sh on machines with and without a GPU: what it fetches and how it configures. setup_test.py SETUP_SH

The machine's nvidia-smi, nvcc, pip and meson are stand-ins; the wheels' nvcc finds its libraries where the real one looks."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

# What comes with a CUDA toolkit of another version is of no use, and no real one may be found behind it.
OLD_NVCC = "echo 'Cuda compilation tools, release 11.8, V11.8.89'"
NVCC_13 = "echo 'Cuda compilation tools, release 13.0, V13.0.88'"
WHEELS_NVCC = f'[ "$1" = --version ] && {NVCC_13} || cat "$(dirname "$0")/../lib64/libcudadevrt.a"'
PYTHON = """[ "$1 $2" = "-m venv" ] || exec /usr/bin/python3 "$@"
mkdir -p "$3/bin" && cp "$PIP" "$3/bin/pip"
"""
# pip as LibTorch's wheels make it: it complains of what `--no-deps` left out.
PIP = """echo "pip $*" >>"$LOG"
site=$(dirname "$0")/../lib/python3.11/site-packages
case "$*" in
  *torch==*) mkdir -p $site/torch/lib && touch $site/torch/lib/libtorch_cuda.so ;;
  *nvcc*) mkdir -p $site/nvidia/cu13/bin $site/nvidia/cu13/lib
    echo devrt >$site/nvidia/cu13/lib/libcudadevrt.a
    cp "$WHEELS_NVCC" $site/nvidia/cu13/bin/nvcc ;;
esac
case "$*" in *--no-deps* | *--no-warn-conflicts*) ;; *) echo "ERROR: torch requires filelock" >&2 ;; esac
"""
MESON = 'echo "meson $*" >>"$LOG"'


class Setup(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = pathlib.Path(directory.name)
        for name in ("bin", "tools", "build", "stand-ins"):
            (self.root / name).mkdir()
        shutil.copy(SETUP, self.root / "tools")
        self.log = self.root / "log"
        self.environment = dict(os.environ, PATH=f"{self.root}/bin:/usr/bin:/bin", LOG=str(self.log))
        for name, script in {"bin/python3": PYTHON, "bin/meson": MESON, "bin/nvcc": OLD_NVCC}.items():
            self.write(name, script)
        for name, script in {"PIP": PIP, "WHEELS_NVCC": WHEELS_NVCC}.items():
            self.environment[name] = self.write("stand-ins/" + name, script)
        self.environment.pop("LIBTORCH", None)

    def write(self, name, script):
        file = self.root / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(0o755)
        return str(file)

    def give_gpu(self):
        self.write("bin/nvidia-smi", "true")

    def no_gpu(self):
        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("this machine has a GPU")

    def run_setup(self, then="true"):
        """Its whole way, and what it prints."""
        self.log.write_text("")
        script = f"source {self.root}/tools/setup.sh; install_libtorch; find_nvcc; configure build -Dtests=false; {then}"
        return subprocess.run(["bash", "-c", script], env=self.environment, capture_output=True, text=True)

    def check_setup(self, then="true"):
        result = self.run_setup(then)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(result.stderr, "")
        return result.stdout

    def called(self, program):
        return [line for line in self.log.read_text().splitlines() if line.startswith(program + " ")]

    def test_with_a_gpu_cuda_is_a_must_and_the_wheels_nvcc_finds_its_libraries(self):
        self.give_gpu()
        printed = self.check_setup("nvcc link")
        self.assertIn("3 GB, with CUDA", printed)
        self.assertTrue(printed.endswith("devrt\n"), printed)
        self.assertRegex(self.called("pip")[1], r" cuda-toolkit\[\S*cublas\S*,nvcc,\S*\]==\S+ nvidia-cudnn-cu13==")
        self.assertEqual(self.called("meson"), ["meson setup -Dlibtorch= -Dcuda=enabled -Dtests=false build"])

    def test_a_second_run_does_nothing(self):
        self.give_gpu()
        self.check_setup()
        self.assertEqual(self.check_setup("nvcc link"), "devrt\n")
        self.assertEqual(self.log.read_text(), "")

    def test_what_an_earlier_version_fetched_and_configured_is_mended(self):
        self.give_gpu()
        self.check_setup()
        next(self.root.glob(".deps/python/lib/*/site-packages/nvidia/cu13/lib64")).unlink()
        (self.root / "build/options").write_text("-Dlibtorch= -Dtests=false\n")
        (self.root / "build/meson-private").mkdir()
        (self.root / "build/meson-private/coredata.dat").touch()
        self.assertIn("devrt\n", self.check_setup("nvcc link"))
        self.assertEqual(self.called("meson"), ["meson setup --reconfigure -Dlibtorch= -Dcuda=enabled -Dtests=false build"])

    def test_an_nvcc_of_cuda_13_that_is_there_is_used(self):
        self.give_gpu()
        self.write("bin/nvcc", f"{NVCC_13}; echo mine")
        self.assertIn("mine", self.check_setup("nvcc"))
        self.assertNotIn("nvcc", self.called("pip")[1])

    def test_with_a_gpu_and_no_nvcc_it_says_what_to_do(self):
        self.give_gpu()
        libtorch = self.root / "libtorch/include/ATen"
        libtorch.mkdir(parents=True)
        (libtorch / "ATen.h").touch()
        self.environment["LIBTORCH"] = str(self.root / "libtorch")
        result = self.run_setup()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "^error: .* no nvcc of CUDA 13, .* install .* or unset LIBTORCH")
        self.assertEqual(self.called("meson"), [])

    def test_without_a_gpu_cuda_is_neither_fetched_nor_asked_for(self):
        self.no_gpu()
        self.assertIn("550 MB", self.check_setup())
        self.assertNotRegex(self.log.read_text(), "cuda-toolkit|cudnn")
        self.assertEqual(self.called("meson"), ["meson setup -Dlibtorch= -Dcuda=auto -Dtests=false build"])
        self.assertEqual(list(self.root.glob(".deps/libtorch/lib/*")), [])

    def test_a_failure_of_meson_is_shown_and_the_end(self):
        self.write("bin/meson", "echo cannot find -lcudadevrt; exit 1")
        result = self.run_setup()
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr, "error: meson could not configure it:\ncannot find -lcudadevrt\n")

    def test_a_failure_of_pip_is_shown_and_the_end(self):
        self.write("stand-ins/PIP", "echo 'ERROR: No matching distribution found' >&2; exit 1")
        result = self.run_setup()
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, "^ERROR: No matching distribution found\nerror: pip could not install torch ")

    def test_fetching_leaves_what_else_is_in_deps(self):
        self.give_gpu()
        (self.root / ".deps/chroots").mkdir(parents=True)
        self.check_setup()
        self.assertTrue((self.root / ".deps/chroots").is_dir())


if __name__ == "__main__":
    SETUP = sys.argv.pop(1)
    unittest.main()
