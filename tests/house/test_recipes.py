"""The recipes of CONTRIBUTING.md are complete: this follows them in a copy of the tree."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys

import pytest
import sources
from sources import TREE
from steps import recipe

pytestmark = pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")


@pytest.fixture
def tree(tmp_path):
    """A copy of the tree, with its compiled modules."""
    for name in ("fastconv", "tests", "docs"):
        shutil.copytree(TREE / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.c", "images"))
    for name in ("README.md", "CONTRIBUTING.md", "pyproject.toml", "setup.py"):
        shutil.copy(TREE / name, tmp_path)
    return tmp_path


def run_tests(tree, *arguments):
    """The status and the output of pytest in the copy."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments],
        cwd=tree,
        env={**environment, "PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_layer(tree):
    for step in recipe("A new layer"):
        step.apply(tree)
    status, shown = run_tests(
        tree,
        "tests/layers/test_layers.py::test_gradients",
        "tests/checks/test_forged.py::test_every_pair_is_there",
        "tests/checks/test_forged.py::test_refused_or_right[others]",
        "tests/checks/test_forged.py::test_refused_or_right[arguments]",
        "tests/house/test_documentation.py",
        "fastconv/layers/softsign.py",
    )
    assert status == 0, shown
    for passed in (
        "test_gradients[softsign]",
        "test_docstrings_are_whole[fastconv.softsign_forward]",
        "test_docstrings_are_whole[fastconv.softsign_backward]",
        "fastconv.layers.softsign.softsign_backward",
    ):
        assert re.search(rf"{re.escape(passed)} PASSED", shown), shown


def test_tests_notice_a_layer_that_is_in_no_table(tree):
    """A layer without its lines in tests/forged.py and README.md fails."""
    for step in recipe("A new layer"):
        if not step.match(r"In `(tests/forged.py|README.md)`"):
            step.apply(tree)
    status, shown = run_tests(
        tree,
        "tests/checks/test_forged.py::test_every_pair_is_there",
        "tests/house/test_documentation.py::test_everything_public_is_named_on_a_page",
    )
    assert status == 1 and "2 failed" in shown and "softsign_backward" in shown, shown


def test_an_algorithm(tree):
    """The recipe is a new module and one line."""
    steps = recipe("A new algorithm")
    assert len(steps) == 2 and len(steps[1].code().splitlines()) == 1
    for step in steps:
        step.apply(tree)
    status, shown = run_tests(
        tree,
        "fastconv/convolution/choose.py",
        "docs/algorithms.md",
        "docs/tour.md",
        "tests/layers/test_conv.py::test_against_loops",
        "-k",
        "doctest or choose or .md or (toy and 2d)",
    )
    assert status == 0 and shown.count("toy") > 20 and "algorithms PASSED" in shown, shown


#: What code has for each instruction set, and for each dtype.
ROWS = {
    "A new instruction set": r"(?i)avx512(?!vl|dq|bw)",
    "A new dtype": r"_?f32\b|\bname##_f32|FLOAT32|np\.float32\b.*float64|\"float\"|_of_float|8 if dtype else 4|\? 8 : 4"
    r"|(?<!dtype\.)itemsize == [48]|FC_BYTES == 4|_dtypes\[0\]|const float\*> ",
}


@pytest.mark.parametrize("title", ROWS)
def test_every_place_with_a_row_is_named(title):
    """Every line of code with such a row belongs to a step, and every step to such a line."""
    places = [step.place() for step in recipe(title)]
    used, missing = set(), []
    for path in sources.written():
        name = path.relative_to(TREE).as_posix()
        if not name.startswith(("fastconv/", "benchmarks/")):
            continue
        for number, line in sources.code_lines(path):
            if re.search(ROWS[title], line):
                found = {(where, text) for where, text in places if fnmatch.fnmatch(name, where) and text in line}
                used |= found
                if not found:
                    missing.append(f"{name}:{number}: {line}")
    assert not missing, "no step names:\n" + "\n".join(missing)
    assert set(places) == used, f"nothing is at {set(places) - used}"


def test_paths_of_steps_are_there():
    for title in ROWS:
        for where, _ in (step.place() for step in recipe(title)):
            assert [path for path in sources.written() if fnmatch.fnmatch(path.relative_to(TREE).as_posix(), where)], (
                where
            )
