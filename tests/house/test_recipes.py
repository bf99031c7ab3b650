"""The recipes of CONTRIBUTING.md are complete: this follows them in a copy of the tree.

A step is "New file `path`", "In `path`, after `anchor`" (both with a block of code), "In `path`, `old` becomes `new`", or
"In `path`, `row`" for places that have a row for each instruction set or dtype.
"""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import sources
from sources import TREE

pytestmark = pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")


@dataclass(frozen=True)
class Step:
    """One numbered step of a recipe."""

    text: str

    def match(self, pattern):
        return re.match(pattern, self.text)

    def apply(self, tree):
        if new := self.match(r"New file `([^`]+)`"):
            path = tree / new[1]
            assert not path.exists()
            like = self.match(r"New file `[^`]+` with the classes `(\w+)` and `(\w+)` of `([^`]+)`")
            path.write_text(module_of(TREE / like[3], like.groups()[:2]) if like else self.code())
            return
        if after := self.match(r"In `([^`]+)`, after `(.+?)`:\n"):
            path, anchor, added = tree / after[1], after[2], self.code()
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            (at,) = (i for i, line in enumerate(lines) if anchor in line)
            path.write_text("".join([*lines[: at + 1], added, *lines[at + 1 :]]), encoding="utf-8")
            return
        path, old, new = self.match(r"In `([^`]+)`, `([^`]+)` becomes `([^`]+)`").groups()
        text = (tree / path).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{path} has {old} {text.count(old)} times"
        (tree / path).write_text(text.replace(old, new), encoding="utf-8")

    def code(self):
        """The code of its block, without the three columns by which a list indents it."""
        (block,) = re.findall(r"^   ```\w*\n(.*?)^   ```", self.text, re.M | re.S)
        return re.sub(r"^   ", "", block, flags=re.M)

    def place(self):
        """The path, which may be a pattern, and the text of a row."""
        return self.match(r"In `([^`]+)`, `([^`]+)`").groups()


def recipe(title):
    """The steps below a heading of CONTRIBUTING.md."""
    page = (TREE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^### {title}\n(.*?)(?=^##)", page, re.M | re.S)
    numbers_and_texts = re.split(r"^(\d+)\. ", section, flags=re.M)[1:]
    steps = dict(zip(map(int, numbers_and_texts[::2]), numbers_and_texts[1::2], strict=True))
    assert steps and list(steps) == list(range(1, len(steps) + 1))
    return [Step(text) for text in steps.values()]


def module_of(path, classes):
    """The source of a module with these classes of another, and the imports of that one."""
    text = path.read_text(encoding="utf-8")
    body = ast.parse(text).body
    kept = [node for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    kept = [
        n for n in kept if not {"cases", "conftest", "pytest", "fastconv"} & {getattr(n, "module", n.names[0].name)}
    ]
    kept = [n for n in kept if "choose" not in ast.unparse(n)]
    kept += [node for node in body if isinstance(node, ast.ClassDef) and node.name in classes]
    assert {node.name for node in kept if isinstance(node, ast.ClassDef)} == set(classes)
    return "\n\n\n".join(ast.get_source_segment(text, node) for node in kept) + "\n"


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
            assert [*Path(TREE).glob(where)], where
