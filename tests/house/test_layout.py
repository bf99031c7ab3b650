"""The layout of the tree: names of files and folders, `__init__` modules, and the folders of tests and benchmarks."""

import ast
import re
import sys
import tomllib

import pytest
import sources
from sources import ROOT, TREE, python_modules

import fastconv

#: Sub-packages that users import by name; their `__init__` exports the public names.
PUBLIC = {"layers", "graph", "nets", "compat", "adapters"}
#: Modules below a public package that users import, too.
FLAT = {"compat.cmu11785", "compat.cs231n"}
HAS_TREE = pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")


def packages():
    return sorted(path.parent for path in ROOT.rglob("__init__.py") if path.parent != ROOT)


def test_no_private_names_of_modules_below_the_root():
    for path in python_modules():
        below = path.relative_to(ROOT).with_suffix("").parts[1:]
        assert not [part for part in below if part.startswith("_") and part not in ("__init__", "__main__")], path


def test_no_folder_has_the_name_of_a_public_function():
    functions = {name for name in fastconv.__all__ if not isinstance(getattr(fastconv, name), type(fastconv))}
    folders = {path.stem for path in ROOT.iterdir()}
    assert not functions & folders
    assert callable(fastconv.algorithms)


@pytest.mark.parametrize("package", packages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_init_modules(package):
    """The `__init__` of a public package exports names; that of any other package holds its docstring only."""
    name = ".".join(package.relative_to(ROOT).parts)
    tree = ast.parse((package / "__init__.py").read_text())
    if name == "_ext":
        assert not tree.body
        return
    assert ast.get_docstring(tree), f"{name} does not say what lives there"
    if name not in PUBLIC | FLAT:
        assert len(tree.body) == 1, f"the __init__ of {name} has more than its docstring"


def test_names_of_modules_are_words():
    for path in python_modules():
        assert re.fullmatch(r"[a-z][a-z0-9_]*|__init__|__main__|_version", path.stem), path


@HAS_TREE
def test_tests_are_in_the_folder_of_their_package():
    """There is one folder for each package or module at the root, `house` for the rules, and `c` for the C headers."""
    folders = {path.name for path in (TREE / "tests").iterdir() if any(path.glob("test_*.py"))}
    names = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    tested = {name for name in names if not name.startswith("_")}
    assert folders - {"house"} == tested
    assert not list((TREE / "tests").glob("test_*.py"))
    files = [path.name for path in (TREE / "tests").rglob("test_*.py")]
    assert len(files) == len(set(files)), "pytest imports test modules by their names"


@HAS_TREE
def test_benchmarks_are_commands_and_their_support():
    commands = {path.stem for path in (TREE / "benchmarks").glob("*.py")}
    others = {name for name in commands if not name.startswith("bench_")}
    assert others == {"ablation", "sparse_vs_dense", "fit_costs", "draw_pictures", "write_performance"}
    for path in (TREE / "benchmarks" / "support").glob("*.py"):
        assert not path.stem.startswith("_") or path.stem == "__init__", path


@HAS_TREE
def test_every_file_of_the_package_is_packed():
    """MANIFEST.in names the suffixes of the sources; package-data those of them that an installed fastconv reads."""
    files = [path for path in ROOT.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    made = {p for p in files if p.suffix in (".so", ".pyd") or (p.suffix == ".c" and p.with_suffix(".pyx").is_file())}
    suffixes = {path.suffix for path in set(files) - made if path.suffix} - {".py", ".typed"}
    (packed,) = re.findall(r"^recursive-include fastconv (.*)$", (TREE / "MANIFEST.in").read_text(), re.M)
    assert set(packed.split()) == {f"*{suffix}" if suffix != ".c" else "*_kernels.c" for suffix in suffixes}
    installed = suffixes - {".pyx", ".pxd", ".h", ".c"}
    data = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["fastconv"]
    assert set(data) == {"py.typed", *(f"**/*{suffix}" for suffix in installed)}


@HAS_TREE
def test_hooks_have_the_requirements_of_the_project():
    """pre-commit's environments have the same releases as that of a developer, so both report the same."""
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    known = {*project["dependencies"], *(line for lines in project["optional-dependencies"].values() for line in lines)}
    hooks = re.findall(r"additional_dependencies: \[(.*)\]", (TREE / ".pre-commit-config.yaml").read_text())
    assert len(hooks) == 5 and {line for hook in hooks for line in re.findall(r'"([^"]+)"', hook)} <= known
    typed = {name for path in python_modules() for name, _ in sources.imports(path)}
    typed = {name.split(".")[0] for name in typed} - {*sys.stdlib_module_names, "fastconv"}
    untyped = tomllib.loads((TREE / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"][0]["module"]
    (mypy,) = (hook for hook in hooks if "mypy" in hook)
    assert {re.match(r"\w+", line)[0] for line in re.findall(r'"([^"]+)"', mypy)} - {"mypy"} == typed - {
        name.split(".")[0] for name in untyped
    }


@HAS_TREE
def test_paths_that_pages_name_are_there():
    """Every path of the tree that a page or a comment names exists."""
    path_like = re.compile(r"(?<![\w./-])((?:fastconv|tests|benchmarks|examples|docs|tools)/[\w./-]*\w)")
    pages = [TREE / "README.md", TREE / "CONTRIBUTING.md", *(TREE / "docs").rglob("*.md"), *(TREE / ".ci").iterdir()]
    for page in [*pages, *sources.written()]:
        # These modules make trees of their own.
        if page.name in ("test_build.py", "test_recipes.py", "test_kernel_recipe.py"):
            continue
        # A recipe names the files that it makes.
        text = re.sub(r"New file `[^`]+`", "", page.read_text(encoding="utf-8"))
        for name in path_like.findall(text):
            made = name.endswith((".so", ".jsonl")) or "results/" in name
            assert made or (TREE / name).exists(), f"{page.relative_to(TREE)} names {name}, which is not there"
