"""Which modules a build compiles. File contents decide, so a second `pip install` compiles nothing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import fastconv

TREE = Path(fastconv.__file__).parent.parent
if not (TREE / "tools" / "build_stamps.py").is_file():
    pytest.skip("needs the source tree", allow_module_level=True)

spec = importlib.util.spec_from_file_location("build_stamps", TREE / "tools" / "build_stamps.py")
build_stamps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build_stamps)

SETTINGS = {"compiler": ["cc", "-O3"], "cython": "3.1", "flags": []}


class Build:
    """A copy of the sources, in which plain files stand for the compiled libraries."""

    def __init__(self, folder):
        self.folder, self.stamps = folder / "_ext", folder / "stamps"
        shutil.copytree(
            TREE / "fastconv" / "_ext", self.folder, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__")
        )
        self.names = build_stamps.modules(self.folder)

    def library(self, name):
        return self.folder / f"{name}.abi3.so"

    def builds(self, settings):
        return [
            (name, self.stamps / name, self.library(name), build_stamps.digest(self.folder, name, settings))
            for name in self.names
        ]

    def run(self, settings=SETTINGS):
        """The modules that setup.py would compile."""
        builds = self.builds(settings)
        stale = build_stamps.stale(builds)
        for name, stamp, library, digest in builds:
            if name in stale:
                library.write_bytes(os.urandom(100))
                build_stamps.record(stamp, library, digest)
        return stale

    def change(self, name):
        path = self.folder / name
        path.write_text(path.read_text() + "\n")


@pytest.fixture
def build(tmp_path):
    return Build(tmp_path)


def test_a_second_build_compiles_nothing(build):
    assert build.run() == build.names and len(build.names) >= 17
    for path in build.folder.iterdir():
        os.utime(path)
    assert build.run() == []


def test_a_header_is_compiled_into_the_modules_that_read_it(build):
    build.run()
    build.change("peak_template.h")
    assert build.run() == ["peak"]
    build.change("winograd_template.h")
    assert build.run() == ["winograd", "winograd_weights"]
    build.change("toeplitz_index.h")
    assert build.run() == ["toeplitz"]
    build.change("runs.pxd")
    assert set(build.run()) >= {"im2col", "implicit", "sparse"} and build.run() == []
    build.change("call_cache.pyx")
    assert build.run() == ["call_cache"]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_other_settings_compile_everything(build, name):
    build.run()
    other = {**SETTINGS, name: "other"}
    assert build.run(other) == build.names
    assert build.run(other) == []


def test_a_library_that_is_not_as_built_is_compiled(build):
    build.run()
    build.library("norm").unlink()
    build.library("pool").write_bytes(b"from elsewhere")
    (build.stamps / "lrn").write_text("half a rec")
    assert build.run() == ["lrn", "norm", "pool"]


def test_a_new_module_is_found(build):
    build.run()
    (build.folder / "added.pyx").write_text('cdef extern from "added.h":\n    int added\n')
    (build.folder / "added.h").write_text("enum { added };\n")
    build.names = build_stamps.modules(build.folder)
    assert build.run() == ["added"]
    build.change("added.h")
    assert build.run() == ["added"]


def test_every_file_is_read_by_a_module():
    folder = TREE / "fastconv" / "_ext"
    read = {path for name in build_stamps.modules(folder) for path in build_stamps.sources(folder, name)}
    assert {*folder.glob("*.h"), *folder.glob("*.pxd"), *folder.glob("*.pyx")} == read


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_headers_are_those_that_the_compiler_reads(tmp_path):
    folder = TREE / "fastconv" / "_ext"
    for header in ("microkernel.h", "norm.h", "sparse.h", "toeplitz.h"):
        source = tmp_path / "one.c"
        source.write_text(f'#include "{header}"\n')
        shown = subprocess.run(["cc", "-MM", f"-I{folder}", str(source)], capture_output=True, text=True, check=True)
        compiled = {Path(name).name for name in re.findall(r"\S+\.h", shown.stdout)}
        (tmp_path / "one.pyx").write_text(f'cdef extern from "{header}":\n    pass\n')
        copy = tmp_path / header[:-2]
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__"))
        shutil.copy(tmp_path / "one.pyx", copy)
        followed = {path.name for path in build_stamps.sources(copy, "one")} - {"one.pyx"}
        assert followed == compiled


def test_packages_are_all_listed():
    """An sdist or a wheel contains only packages that have an __init__.py."""
    for path in (TREE / "fastconv").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


def test_no_kernel_names_a_shuffle_that_gcc_11_lacks():
    for path in (TREE / "fastconv" / "_ext").glob("*.h"):
        if path.name != "isa.h":
            assert "__builtin_shuffle" not in path.read_text(), f"{path.name}: FC_SHUFFLE has a form for each compiler"


def test_nobody_turns_off_the_interpreters_lock_yet():
    """No module may declare that it is ready for free threading, because none is proved safe without the GIL."""
    assert "freethreading_compatible" not in (TREE / "setup.py").read_text()


def test_py_typed():
    assert (TREE / "fastconv" / "py.typed").is_file()


@pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")
def test_unbuilt_tree_says_what_to_type(tmp_path):
    shutil.copytree(
        TREE / "fastconv", tmp_path / "fastconv", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    )
    result = subprocess.run(
        [sys.executable, "-c", "import fastconv"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: fastconv's compiled modules are not built")
    assert "type `python -m pip install -e .`" in last
    assert "ModuleNotFoundError" not in result.stderr


def test_kernels_are_stable_abi():
    from fastconv._ext import im2col, pool

    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("a free-threaded Python has an ABI of its own")
    assert all(".abi3." in module.__file__ or module.__file__.endswith(".pyd") for module in (im2col, pool))
