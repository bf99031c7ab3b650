"""docs/kernels.md is complete: its recipe adds a family of kernels to a copy of the sources, which then compiles."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import sources
from sources import TREE
from steps import recipe

from fastconv.report.kernel_work import WORK

PAGE = "docs/kernels.md"
pytestmark = pytest.mark.skipif(not (TREE / PAGE).is_file(), reason="needs the source tree")
needs_cc = pytest.mark.skipif(
    os.name == "nt" or shutil.which("cc") is None, reason="needs a C compiler with the options of GCC"
)


def families_of_driver(tree):
    return set(re.findall(r"\brow\((\w+)\)", (tree / "tools" / "kernel_driver" / "driver.h").read_text()))


def families_of_build(tree):
    return {path.name.removesuffix("_kernels.c") for path in (tree / "fastconv" / "_ext").glob("*/*_kernels.c")}


def test_every_family_has_a_check_and_is_timed():
    """The driver, bench-kernel and the checks of tests/c know each family of kernels."""
    families = families_of_build(TREE)
    assert families_of_driver(TREE) == families == WORK.keys()
    assert families <= {path.stem for path in (TREE / "tests" / "c").glob("*.c")}
    assert {path.stem for path in (TREE / "tools" / "kernel_driver").glob("*.c")} == families | {"main"}


@pytest.fixture
def tree(tmp_path):
    """A copy of the C and Cython sources, the driver and the checks, after the steps of the recipe."""
    for name in ("fastconv/_ext", "fastconv/report", "tests/c", "tools/kernel_driver"):
        shutil.copytree(TREE / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    (tmp_path / "fastconv" / "__init__.py").touch()
    (tmp_path / "fastconv" / "layers").mkdir()
    for step in recipe("A kernel from start to end", PAGE):
        step.apply(tmp_path)
    return tmp_path


def run(tree, *arguments):
    done = subprocess.run(arguments, cwd=tree, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def command(start):
    """The arguments of a command of the page, for another family."""
    (line,) = re.findall(rf"^{re.escape(start)}.*$", (TREE / PAGE).read_text(encoding="utf-8"), re.M)
    return [word.replace("activation", "clamp") for word in shlex.split(line)]


@needs_cc
def test_the_check_of_the_example_passes(tree):
    status, shown = run(tree, *command("cc -O1 -g"), "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
    assert status == 0, shown
    status, shown = run(tree, "./check")
    assert status == 0 and re.match(r"clamp: [1-9]\d+ checks, 0 failed, by baseline", shown), shown
    template = tree / "fastconv" / "_ext" / "elementwise" / "clamp_template.h"
    template.write_text(template.read_text().replace("(v > high)", "(v < high)"))
    assert run(tree, *command("cc -O1 -g"))[0] == 0
    status, shown = run(tree, "./check")
    assert status == 1 and "got" in shown, shown


@needs_cc
def test_the_driver_of_the_example_runs(tree):
    build = [word.replace("ONLY_avx2", "ONLY_baseline") for word in command("cc -O3")]
    status, shown = run(tree, *build, "-Wall", "-Wextra", "-Werror", "-Wno-unused-function")
    assert status == 0, shown
    status, shown = run(tree, "./kernel_driver", "clamp", "baseline", "f32", "0")
    assert status == 0, shown
    assert re.search(r"^clamp baseline f32\n  clamp, 4096 elements +[\d.]+ us +[\d.]+ GB/s +[\d.]+ % of memcpy$", shown)
    for arguments, message in (
        ((), "usage: ./kernel_driver FAMILY [ISA|all] [f32|f64|all] [SECONDS]\nfamilies: clamp\n"),
        (("pool",), "there is no family 'pool'"),
        (("clamp", "sse9"), "there is no instruction set 'sse9'"),
        (("clamp", "all", "f16"), "there is no dtype 'f16'"),
        (("clamp", "all", "all", "soon"), "SECONDS must be a number from 0 to 60, got 'soon'"),
    ):
        status, shown = run(tree, "./kernel_driver", *arguments)
        assert status == 2 and message in shown, shown
    status, shown = run(tree, "./kernel_driver", "clamp", "all", "f64")
    assert status == 1 and "this program has no kernels of clamp for all and f64" in shown


def test_cython_accepts_the_module_of_the_example(tree):
    pytest.importorskip("Cython")
    source = "fastconv/_ext/elementwise/clamp.pyx"
    status, shown = run(tree, sys.executable, "-m", "cython", "-3", "--warning-errors", source, "-o", "clamp.c")
    assert status == 0, shown
    assert "fc_clamp_for" in (tree / "clamp.c").read_text(encoding="utf-8")


def test_the_example_is_in_the_tables(tree):
    assert families_of_driver(tree) == families_of_build(tree) == {*WORK, "clamp"}
    spec = importlib.util.spec_from_file_location("build_stamps", TREE / "tools" / "build_stamps.py")
    build_stamps = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build_stamps)
    folder = tree / "fastconv" / "_ext"
    assert build_stamps.linked_families(folder, "elementwise.clamp") == ["clamp"]
    lines = [text for _, text in sources.code_lines(tree / "fastconv" / "report" / "kernel_work.py")]
    assert '"clamp": (' in lines
