"""Imports follow the order of the packages, without cycles; each third party is imported in one place."""

import re
import sys

import pytest
import sources
from sources import ROOT, TREE, python_modules

#: The packages and modules at the root, lowest first. Each imports only from lines above its own, or from itself.
ORDER = (
    "_ext _version",
    "runtime",
    "checks",
    "geometry",
    "lowering",
    "convolution",
    "layers toeplitz gradient_check",
    "graph nets report",
    "adapters compat demo",
    "__init__",
    "__main__",
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names.split()}
#: Compiled modules that more than one package at the root uses.
SHARED = {"gemm.microkernel": {"runtime", "convolution"}, "lowering.im2col": {"lowering", "report"}}


def arrows(first_use, inside=""):
    """For each module below `inside`, the modules below `inside` that it imports."""
    found = {}
    for path in python_modules():
        name = sources.name_of(path)
        if name.startswith(inside or "fastconv"):
            found[name] = {n for n, _ in sources.imports(path, first_use) if n.startswith(inside or "fastconv")} - {
                name
            }
    return found


def test_imports_go_down():
    for path in python_modules():
        name = sources.name_of(path)
        here = "__main__" if path.name == "__main__.py" else sources.package_of(name)
        assert here in LEVEL, f"{path}: {here} has no place in the order"
        for imported, line in sources.imports(path):
            if imported.split(".")[0] != "fastconv":
                continue
            # `from fastconv import layers`: higher packages import public packages from the root, as users do.
            there = sources.package_of(imported)
            assert there in LEVEL, f"{path}:{line}: {there} has no place in the order"
            assert there == here or LEVEL[there] < LEVEL[here], (
                f"{path}:{line}: {here} imports {there}, which is above it"
            )


def test_no_circle_of_modules():
    """Imports inside functions count, too, except in the root, which imports some names at first use."""
    graph = {name: others - {"fastconv"} for name, others in arrows(True).items() if name != "fastconv"}
    assert sources.circles(graph) == []


@pytest.mark.parametrize("package", ["convolution", "layers"])
def test_no_circle_of_folders(package):
    """A folder below a package counts as one unit, and so does each module beside such folders."""
    inside = f"fastconv.{package}."

    def part(name):
        return name.removeprefix(inside).split(".")[0]

    graph = {}
    for name, others in arrows(True, inside).items():
        graph.setdefault(part(name), set()).update({part(n) for n in others} - {part(name)})
    assert sources.circles(graph) == []


def test_circles_are_found():
    assert sources.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert sources.circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_few_packages_at_the_top():
    packages = {
        p.stem if p.is_file() else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert packages <= LEVEL.keys() and len(packages) <= 20, sorted(packages)


def test_third_parties_are_imported_in_their_places():
    """All packages may import NumPy and SciPy. `adapters` has one module per third party; the demo may import any."""
    allowed = {"numpy", "scipy", "fastconv", *sys.stdlib_module_names}
    for path in python_modules():
        own = {path.stem} if path.parent.name == "adapters" else set()
        for name, line in sources.imports(path):
            assert "demo" in path.parts or name.split(".")[0] in allowed | own, f"{path}:{line}: {name}"


def test_compiled_modules_import_no_python_of_fastconv():
    for path in (ROOT / "_ext").rglob("*.pyx"):
        for found in re.findall(r"^\s*(?:from|import)\s+(fastconv\S*)", path.read_text(), re.M):
            assert found.startswith("fastconv._ext"), f"{path}: {found}"


def test_compiled_modules_are_used_by_one_package():
    users = {}
    for path in python_modules():
        here = sources.package_of(sources.name_of(path))
        for name, _ in sources.imports(path):
            if name.startswith("fastconv._ext.") and here != "__init__":
                users.setdefault(name.removeprefix("fastconv._ext."), set()).add(here)
    several = {name: packages for name, packages in users.items() if len(packages) > 1}
    assert several == SHARED
    unused = {f"{path.parent.name}.{path.stem}" for path in (ROOT / "_ext").rglob("*.pyx")} - users.keys()
    assert unused == set()


def test_modules_are_imported_by_name():
    """No package has the name of a public function, so no module needs a look-up in `sys.modules`."""
    for folder in ("tests", "benchmarks", "examples"):
        for path in (TREE / folder).rglob("*.py"):
            looked_up = re.search(r"sys\.modules\[[\"']fastconv", path.read_text())
            assert not looked_up or path.name == "test_imports.py", path
