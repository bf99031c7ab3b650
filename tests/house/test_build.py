"""Which modules a build compiles. File contents decide, so a second `pip install` compiles nothing."""

import importlib.util
import itertools
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
    """A copy of the sources, with plain files instead of objects and libraries."""

    def __init__(self, folder):
        self.folder, self.stamps = folder / "_ext", folder / "stamps"
        shutil.copytree(
            TREE / "fastconv" / "_ext", self.folder, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
        )

    def digests(self, settings):
        """The digest of each object, of kernels and of modules."""
        found = {
            f"{family}-{isa}-{dtype}": build_stamps.digest(sources, [settings, isa, dtype])
            for family in build_stamps.families(self.folder)
            for sources in [build_stamps.kernel_sources(self.folder, family)]
            for isa, dtype in build_stamps.versions(self.folder, family)
        }
        for name in build_stamps.modules(self.folder):
            found[name] = build_stamps.digest(build_stamps.module_sources(self.folder, name), settings)
        return found

    def made(self, name):
        return self.stamps / f"{name}.o"

    def run(self, settings=SETTINGS):
        """The names of the objects that setup.py would compile: modules, and families of kernels."""
        compiled = []
        for name, digest in self.digests(settings).items():
            stamp = self.stamps / name
            if not build_stamps.is_current(stamp, self.made(name), digest):
                compiled.append(name)
                stamp.parent.mkdir(exist_ok=True)
                self.made(name).write_bytes(os.urandom(100))
                build_stamps.record(stamp, self.made(name), digest)
        return compiled

    def change(self, name):
        path = self.folder / name
        path.write_text(path.read_text() + "\n")


@pytest.fixture
def build(tmp_path):
    return Build(tmp_path)


def versions_of(*families, folder=TREE / "fastconv" / "_ext"):
    """The names of the objects of some families of kernels."""
    return {f"{name}-{isa}-{dtype}" for name in families for isa, dtype in build_stamps.versions(folder, name)}


def test_a_family_is_compiled_for_each_instruction_set_unless_it_has_baseline_kernels_only():
    assert len(versions_of("pool")) == 6
    assert versions_of("toeplitz") == {"toeplitz-baseline-f32", "toeplitz-baseline-f64"}
    folder = TREE / "fastconv" / "_ext"
    declared = {path.stem for path in folder.glob("*/*.h") if "\nFC_BASELINE_KERNELS(" in path.read_text()}
    assert declared == {name for name in build_stamps.families(folder) if len(versions_of(name)) == 2}


def test_a_second_build_compiles_nothing(build):
    compiled = build.run()
    assert compiled == list(build.digests(SETTINGS)) and len(compiled) >= 24 + 6 * 15 + 2
    for path in build.folder.rglob("*.*"):
        os.utime(path)
    assert build.run() == []


def test_a_change_compiles_the_objects_that_read_the_file(build):
    build.run()
    build.change("simd/peak_template.h")
    assert set(build.run()) == versions_of("peak")
    build.change("winograd/winograd_template.h")
    assert set(build.run()) == versions_of("winograd")
    build.change("winograd/winograd.h")
    assert set(build.run()) == versions_of("winograd") | {"winograd.winograd"}
    build.change("toeplitz/index.h")
    assert set(build.run()) == versions_of("toeplitz")
    build.change("buffers/runs.pxd")
    changed = set(build.run())
    assert changed >= {"lowering.im2col", "gemm.implicit", "sparse.sparse"} and not changed & versions_of("sparse")
    build.change("buffers/call_cache.pyx")
    assert build.run() == ["buffers.call_cache"]
    build.change("simd/isa.h")
    assert set(build.run()) >= versions_of(*build_stamps.families(build.folder))


def test_every_family_of_kernels_is_linked_with_one_module():
    folder = TREE / "fastconv" / "_ext"
    linked = {name: build_stamps.linked_families(folder, name) for name in build_stamps.modules(folder)}
    assert sorted(itertools.chain(*linked.values())) == build_stamps.families(folder)
    assert linked["winograd.winograd"] == ["winograd"] and linked["gemm.microkernel"] == ["microkernel"]
    assert linked["gemm.implicit"] == []
    assert build_stamps.readers(folder, ["winograd_template.h"]) == ["winograd.winograd"]
    assert build_stamps.readers(folder, ["microkernel_template.h"]) == ["gemm.microkernel"]


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_other_settings_compile_everything(build, name):
    everything = build.run()
    other = {**SETTINGS, name: "other"}
    assert build.run(other) == everything
    assert build.run(other) == []


def test_an_object_that_is_not_as_built_is_compiled(build):
    build.run()
    build.made("norm.norm").unlink()
    build.made("pool-avx2-f32").write_bytes(b"from elsewhere")
    (build.stamps / "norm.lrn").write_text("half a rec")
    assert sorted(build.run()) == ["norm.lrn", "norm.norm", "pool-avx2-f32"]


def test_a_new_module_and_a_new_family_are_found(build):
    build.run()
    folder = build.folder / "new"
    folder.mkdir()
    (folder / "added.pyx").write_text('cdef extern from "new/added.h":\n    int fc_added_for(int isa)\n')
    (folder / "added.h").write_text("enum { added };\n")
    (folder / "added_kernels.c").write_text('#include "new/added.h"\n')
    assert set(build.run()) == {"new.added"} | versions_of("added", folder=build.folder)
    assert build_stamps.linked_families(build.folder, "new.added") == ["added"]
    build.change("new/added.h")
    assert set(build.run()) == {"new.added"} | versions_of("added", folder=build.folder)


def test_every_file_is_read_by_a_module_or_a_family():
    folder = TREE / "fastconv" / "_ext"
    read = {path for name in build_stamps.modules(folder) for path in build_stamps.module_sources(folder, name)}
    read |= {path for name in build_stamps.families(folder) for path in build_stamps.kernel_sources(folder, name)}
    every = {path for name in ("*.h", "*_kernels.c", "*.pxd", "*.pyx") for path in folder.rglob(name)}
    assert every == read


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_headers_are_those_that_the_compiler_reads():
    folder = TREE / "fastconv" / "_ext"
    for family in build_stamps.families(folder):
        source = build_stamps.kernel_source(folder, family)
        shown = subprocess.run(["cc", "-MM", f"-I{folder}", str(source)], capture_output=True, text=True, check=True)
        compiled = {Path(name) for name in re.findall(r"\S+\.h", shown.stdout)}
        followed = set(build_stamps.kernel_sources(folder, family)) - {source}
        assert followed == compiled


def test_packages_are_all_listed():
    """An sdist or a wheel contains only packages that have an __init__.py."""
    for path in (TREE / "fastconv").rglob("*.py"):
        assert (path.parent / "__init__.py").is_file(), path


def test_no_kernel_names_a_shuffle_that_gcc_11_lacks():
    for path in (TREE / "fastconv" / "_ext").rglob("*.h"):
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
    from fastconv._ext.lowering import im2col
    from fastconv._ext.pool import pool

    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("a free-threaded Python has an ABI of its own")
    assert all(".abi3." in module.__file__ or module.__file__.endswith(".pyd") for module in (im2col, pool))
