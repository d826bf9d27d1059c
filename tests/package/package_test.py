#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The wheel in a virtual environment: pip installs it, GStreamer and PyGObject find the element, `gst-wan` answers, and
nothing is left behind. Then the source distribution and `meson install`.

The wheel is linked from the objects of the build that this is a test of. LibTorch is a link to the one there, where pip
would have unpacked its wheel."""
import email
import os
import pathlib
import re
import subprocess
import tarfile
import tempfile
import unittest
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["WAN_OBJECTS"])
LIBTORCH = pathlib.Path(os.environ["LIBTORCH"])
VERSION = os.environ["WAN_TEST_VERSION"]
ARCHITECTURES = "-Dgpu_archs=" + os.environ["WAN_TEST_GPU_ARCHS"]
MODEL = ROOT / "models" / "wan-tiny"
WIDTH, HEIGHT, FRAMES = 64, 48, 5
LINE = ["wansrc", "prompt=a red circle", "steps=1", f"num-frames={FRAMES}", "device=cpu", "!",
        f"video/x-raw,format=RGB,width={WIDTH},height={HEIGHT}", "!", "filesink", "location=video"]
PYGOBJECT = """
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
{}
print(Gst.ElementFactory.find("wansrc").get_plugin().get_filename())
"""


def run(*command, **options):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)


def clean_environment(directory):
    """One in which nothing points to the build directory."""
    wanted = {name: value for name, value in os.environ.items() if not name.startswith(("GST_", "WAN_", "LIBTORCH", "PYTHON"))}
    return {**wanted, "GST_REGISTRY": f"{directory}/registry", "PYTHONDONTWRITEBYTECODE": "1"}


def needed(file):
    """The libraries that a file links, and where it looks for them."""
    listing = run("readelf", "-d", file).stdout
    return re.findall(r"NEEDED.*\[(.*)\]", listing), re.findall(r"R(?:UN)?PATH.*\[(.*)\]", listing)


class Temporary(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory(prefix="wan-package-")
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)
        self.environment = clean_environment(self.directory)

    def check(self, *command, **options):
        done = run(*command, **{"cwd": self.directory, "env": self.environment, **options})
        self.assertEqual(done.returncode, 0, f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def check_video(self):
        self.assertEqual((self.directory / "video").stat().st_size, WIDTH * HEIGHT * 3 * FRAMES)


class Wheel(Temporary):
    @classmethod
    def setUpClass(cls):
        cls.work = tempfile.TemporaryDirectory(prefix="wan-wheel-")
        cls.addClassCleanup(cls.work.cleanup)
        work = pathlib.Path(cls.work.name)
        made = run("bash", ROOT / "tools" / "wheel.sh", work / "dist", ARCHITECTURES)
        if made.returncode:
            raise AssertionError(f"tools/wheel.sh failed: {made.stdout[-4000:]}{made.stderr[-4000:]}")
        cls.wheel, = (work / "dist").glob("*.whl")
        cls.sources = next((work / "dist").glob("*.tar.gz"), None)
        cls.venv = work / "venv"
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--system-site-packages", cls.venv], check=True)
        cls.site, = cls.venv.glob("lib/python3*/site-packages")
        (cls.site / "torch").symlink_to(LIBTORCH)
        for metadata in LIBTORCH.parent.glob("torch-*.dist-info"):
            (cls.site / metadata.name).symlink_to(metadata)
        cls.before = cls.files()
        cls.pip("install", "--no-index", "--no-deps", cls.wheel)

    @classmethod
    def files(cls):
        return {path for path in cls.venv.rglob("*") if not path.is_symlink() and "__pycache__" not in path.parts}

    @classmethod
    def pip(cls, *arguments):
        subprocess.run([cls.venv / "bin/pip", "--quiet", "--disable-pip-version-check", *arguments], check=True)

    def command(self, *arguments):
        return [self.venv / "bin" / "gst-wan", *arguments]

    def doctor(self, *arguments, **environment):
        return run(*self.command("doctor", *arguments), cwd=self.directory, env={**self.environment, **environment})

    def copy_model(self, name):
        """A checkpoint of links, in which a file can be made another."""
        copy = self.directory / name
        copy.mkdir(parents=True)
        for file in MODEL.iterdir():
            (copy / file.name).symlink_to(file)
        return copy

    def replace(self, link, content):
        link.unlink()
        link.write_bytes(content)

    def test_it_is_for_linux_whatever_the_python_and_asks_for_torch(self):
        self.assertRegex(self.wheel.name, rf"^gst_wan-{re.escape(VERSION)}-py3-none-(manylinux_2_\d+_\w+\.?)+\.whl$")
        with zipfile.ZipFile(self.wheel) as wheel:
            metadata = email.message_from_bytes(wheel.read(f"gst_wan-{VERSION}.dist-info/METADATA"))
        self.assertEqual(metadata.get_all("Requires-Dist"), ["torch==2.11.*"])
        self.assertEqual(metadata["License-Expression"], "LGPL-2.1-or-later")
        self.assertLess(self.wheel.stat().st_size, 100 << 20)

    def test_it_has_neither_libtorch_nor_gstreamer_and_looks_for_them_where_pip_puts_them(self):
        libraries = [file for file in (self.site / "gst_wan").rglob("*.so*")] + list(self.site.glob("gst_wan.libs/*"))
        self.assertGreaterEqual(len(libraries), 2)
        for library in libraries:
            self.assertNotRegex(library.name, "torch|c10|gstreamer|glib")
            for path in ":".join(needed(library)[1]).split(":"):
                self.assertRegex(path, r"^(\$ORIGIN(/.*)?)?$", library)

    def test_a_launch_line_makes_a_video(self):
        self.check(*self.command("launch", "-q", *LINE))
        self.check_video()

    def test_the_status_of_a_launch_line_is_the_commands(self):
        done = run(*self.command("launch", "-q", *LINE, "wansrc.nothing"), cwd=self.directory, env=self.environment)
        self.assertEqual(done.returncode, 1, done.stderr)

    def test_a_shell_finds_the_element_and_keeps_what_it_had(self):
        script = 'eval "$(gst-wan env)"; eval "$(gst-wan env)"; echo "$GST_PLUGIN_PATH"; gst-inspect-1.0 wansrc'
        path = f"{self.venv}/bin:{self.environment['PATH']}"
        out = self.check("sh", "-ec", script, env={**self.environment, "PATH": path, "GST_PLUGIN_PATH": "/own dir"})
        plugins = self.site / "gst_wan" / "lib" / "gstreamer-1.0"
        self.assertEqual(out.splitlines()[0], f"{plugins}:/own dir")
        self.assertIn(str(plugins / "libgstwan.so"), out)

    def test_presets_come_with_it(self):
        self.check(*self.command("launch", "-q", "wansrc", "@preset=4-steps", *LINE[1:]))
        self.check_video()

    def test_pygobject_finds_the_element(self):
        for name, code in {"imported before": "Gst.init(None)", "imported after": "Gst.init(None)\nimport gst_wan"}.items():
            with self.subTest(name):
                code = ("import gst_wan\n" if name == "imported before" else "") + PYGOBJECT.format(code)
                found = self.check(self.venv / "bin/python", "-c", code)
                self.assertEqual(found.strip(), str(self.site / "gst_wan/lib/gstreamer-1.0/libgstwan.so"))

    def test_the_worker_says_how_it_is_used(self):
        self.assertIn("--listen", self.check(*self.command("worker", "--help")))

    def test_the_doctor_is_content(self):
        done = self.doctor()
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertRegex(done.stdout, r"(?m)^ok +GStreamer 1\.\d+")
        self.assertRegex(done.stdout, rf"(?m)^ok +gst-wan {re.escape(VERSION)}, built with LibTorch 2\.11\.0, ")
        self.assertRegex(done.stdout, r"(?m)^ok +.*wansrc runs on \w+.* of host memory are free$")
        for model in (r"wan-tiny: T2V-A14B, 160x96, 33 frames", r"wan-tiny-ti2v: TI2V-5B, .* frames"):
            self.assertRegex(done.stdout, rf"(?m)^ok +The embedded model {model}: .*memory=resident needs .* is taken "
                             r"\(up to \d+ frames of \d+x\d+\)$")
        self.assertRegex(done.stdout, r"(?m)^ok +The embedded model wan-tiny-causal: .*, 160x96, endless: .* is taken$")

    def test_the_doctor_tells_good_checkpoints_from_bad_ones(self):
        self.copy_model("models/good")
        cut = self.copy_model("models/cut") / "vae"
        target = cut.resolve()
        cut.unlink()
        cut.mkdir()
        for file in target.iterdir():
            (cut / file.name).symlink_to(file)
        weights = next(cut.glob("*.safetensors"))
        self.replace(weights, weights.read_bytes()[:-1])
        self.replace(self.copy_model("models/broken") / "model_index.json", b"{")
        (self.directory / "models/pictures").mkdir()
        done = self.doctor("models")
        self.assertEqual(done.returncode, 1, done.stdout)
        lines = [line for line in done.stdout.splitlines() if " models/" in line]
        self.assertEqual(len(lines), 3, done.stdout)
        self.assertRegex(lines[0], r"^problem +models/broken would not load: .*model_index\.json.*\.$")
        self.assertRegex(lines[1], r"^problem +models/cut: .* would not load: .*safetensors.*\.$")
        self.assertRegex(lines[2], r"^ok +models/good: T2V-A14B, ")
        self.assertEqual(self.doctor("models/good").returncode, 0)

    def test_the_doctor_names_a_directory_that_is_not_there(self):
        done = self.doctor("nowhere")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"(?m)^problem +nowhere would not load: .*nowhere")

    def test_the_doctor_says_how_to_get_gstreamer(self):
        done = self.doctor(PATH=str(self.venv / "bin"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"(?m)^problem +GStreamer's tools are not installed\. .*apt install gstreamer1\.0-tools")
        launched = run(*self.command("launch", "wansrc"), env={**self.environment, "PATH": str(self.venv / "bin")})
        self.assertEqual(launched.returncode, 127)
        self.assertRegex(launched.stderr, r"^gst-wan: GStreamer's tools are not installed\.")

    def test_the_doctor_says_how_to_get_torch(self):
        torch = self.site / "torch"
        self.addCleanup(torch.symlink_to, torch.resolve())
        torch.unlink()
        done = self.doctor()
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"(?m)^problem +The engine cannot be opened: .*libtorch_cpu\.so.* pip install 'torch==2\.11")

    def test_uninstalling_leaves_nothing(self):
        self.pip("uninstall", "--yes", "gst-wan")
        try:
            self.assertEqual(self.files() - self.before, set())
        finally:
            self.pip("install", "--no-index", "--no-deps", self.wheel)

    def test_the_source_distribution_has_all_that_git_has(self):
        if not self.sources:
            self.skipTest("these sources are no git checkout")
        with tarfile.open(self.sources) as archive:
            packed = {name.partition("/")[2] for name in archive.getnames()}
        tracked = set(run("git", "ls-tree", "-rz", "--name-only", "HEAD", cwd=ROOT).stdout.split("\0")) - {""}
        self.assertEqual(tracked - packed, set())

    def test_the_source_distribution_builds_with_the_torch_that_pip_fetched_for_it(self):
        if not self.sources:
            self.skipTest("these sources are no git checkout")
        self.check("tar", "-xf", self.sources)
        sources, = self.directory.glob("gst_wan-*")
        for path in sources.rglob("*"):
            os.utime(path, (1e9, 1e9))  # older than the objects, so that only linking is left
        build = sources / "build-wheel"
        self.check("bash", "-c", '. "$1"; take_objects "$2" "$3"', "bash", ROOT / "tools" / "setup.sh", BUILD, build)
        fetched = self.directory / "fetched"
        fetched.mkdir()
        (fetched / "torch").symlink_to(LIBTORCH)
        self.check(ROOT / ".deps/wheel-tools/bin/python", "-m", "build", "--wheel", "--no-isolation", "--skip-dependency-check",
                   f"-Cbuild-dir={build}", f"-Csetup-args={ARCHITECTURES}", sources, env={**self.environment, "PYTHONPATH": str(fetched)})
        self.assertEqual(len(list(sources.glob("dist/gst_wan-*.whl"))), 1)


class Install(Temporary):
    def setUp(self):
        super().setUp()
        self.root = self.directory / "root"
        self.check("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", self.root)
        plugin, = self.root.rglob("libgstwan.so")
        self.plugins = plugin.parent.relative_to(self.root)

    def check_launch(self, plugins):
        self.check("gst-launch-1.0", "-q", *LINE, env={**self.environment, "GST_PLUGIN_PATH": str(plugins)})
        self.check_video()

    def test_what_is_installed_runs_wherever_it_is_moved(self):
        elsewhere = self.root.rename(self.directory / "elsewhere")
        self.check_launch(elsewhere / self.plugins)

    def test_it_runs_through_a_link_to_a_part_of_it(self):
        """As Debian's /lib is one to /usr/lib."""
        prefix, _, below = str(self.plugins).partition("/lib/")
        (self.directory / "lib").symlink_to(self.root / prefix / "lib")
        self.check_launch(self.directory / "lib" / below)


if __name__ == "__main__":
    unittest.main()
