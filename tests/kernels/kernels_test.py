#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the compiler made of the CUDA kernels: kernels_test.py LIBWAN_ENGINE_CUDA ARCHITECTURE...

Without a GPU it is the only thing that can be said of them. Skipped where there is no cuobjdump."""
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# tools/setup.sh installs them there: cuobjdump, and nvdisasm, which it runs.
TOOLS = ROOT.glob(".deps/wheel-tools/lib/python3*/site-packages/nvidia/cu13/bin")
os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *map(str, TOOLS), "/usr/local/cuda/bin"])
HOPPER = "90a"
# Bytes that a thread keeps in memory. Hopper's kernels give most of their registers to the warps that multiply.
MOST_STACK = collections.defaultdict(int, {HOPPER: 40})
# Which tensor-core instructions a kernel is made of, by a part of its name.
TENSOR_CORES = {"4sm80": r"HMMA\.16816\.F32\.BF16", "4sm90": r"[HQ]GMMA"}


def cuobjdump(*arguments):
    return subprocess.run(["cuobjdump", *arguments, LIBRARY], check=True, capture_output=True, text=True).stdout


def kernels(text):
    """(architecture, kernel, what is said of it), as cuobjdump lists them."""
    architecture = kernel = None
    lines = collections.defaultdict(list)
    for line in text.splitlines():
        if found := re.match(r"\s*arch = sm_(\w+)", line):
            architecture, kernel = found[1], None
        elif found := re.match(r"\s*Function\s*:?\s*(\w+)", line):
            kernel = found[1]
        elif kernel:
            lines[architecture, kernel].append(line)
    return [(*key, "\n".join(said)) for key, said in lines.items()]


class Kernels(unittest.TestCase):
    def test_every_architecture_has_all_kernels(self):
        found = collections.defaultdict(set)
        for architecture, kernel, _ in kernels(cuobjdump("--dump-resource-usage")):
            found[architecture].add(kernel)
        self.assertEqual(set(found), {*ARCHITECTURES, HOPPER})
        for architecture in ARCHITECTURES:
            self.assertEqual(found[architecture], found[ARCHITECTURES[0]], architecture)

    def test_no_kernel_keeps_registers_in_memory(self):
        for architecture, kernel, usage in kernels(cuobjdump("--dump-resource-usage")):
            with self.subTest(architecture=architecture, kernel=kernel):
                stack, local = re.search(r"STACK:(\d+) .*LOCAL:(\d+) ", usage).groups()
                self.assertLessEqual(int(stack), MOST_STACK[architecture])
                self.assertEqual(int(local), 0)

    def test_products_are_computed_by_tensor_cores(self):
        counts = collections.Counter()
        for architecture, kernel, code in kernels(cuobjdump("--dump-sass")):
            for namespace, instruction in TENSOR_CORES.items():
                if namespace in kernel:
                    counts[architecture] += 1
                    self.assertRegex(code, instruction, f"{kernel} of sm_{architecture}")
        for architecture in [*ARCHITECTURES, HOPPER]:
            self.assertGreater(counts[architecture], 0, f"sm_{architecture}")


if __name__ == "__main__":
    LIBRARY, *ARCHITECTURES = sys.argv[1:]
    if not (shutil.which("cuobjdump") and shutil.which("nvdisasm")):
        print("There is no cuobjdump")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1], verbosity=2)
