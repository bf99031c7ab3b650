"""The house rules that a reader cannot see from one file."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import gradient_check
from fastconv.compat import cmu11785, cs231n, deeplearning_ai, dlfs
from fastconv.graph import Tape

ROOT = Path(fastconv.__file__).parent
TREE = ROOT.parent
# Rooms from the ground up: a module may import only from rooms below its own, or from its own.
FLOORS = [
    {"_ext", "_version", "_cpus", "_interrupt", "_records", "_plan_cache"},
    {"_team", "_isa", "_memory", "_blas", "_messages"},
    {"_threads"},
    {"_copies"},
    {"_arrays", "_options", "_explain_stride", "_axis"},
    {"geometry", "gradient_check", "_receptive", "graph"},
    {"_padding", "_spans", "_pool_geometry", "_transpose_geometry", "_fractional"},
    {"lowering", "_csr"},
    {"algorithms"},
    {"_config", "_explain", "_threadpoolctl", "layers", "toeplitz"},
    {"_layer_kinds"},
    {"_summary", "compat", "demo"},
    {"__init__"},
    {"__main__"},
]


def room(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            if node.module == "fastconv":
                yield from ((f"fastconv.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def modules():
    return sorted(ROOT.rglob("*.py"))


def test_imports_go_down_only():
    level = {name: i for i, names in enumerate(FLOORS) for name in names}
    for path in modules():
        here = path.relative_to(ROOT).with_suffix("").parts[0]
        for name, line in imports(path):
            if name == "fastconv" or name.startswith("fastconv."):
                there = room(name)
                assert there in level, f"{path}:{line}: {name} has no floor"
                assert level[there] < level[here] or there == here, f"{path}:{line}: {here} imports {there} above it"


def test_run_time_needs_numpy_and_scipy_only():
    allowed = {"numpy", "scipy", "fastconv", *sys.stdlib_module_names}
    for path in modules():
        if "demo" in path.parts:
            continue
        for name, line in imports(path):
            assert name.split(".")[0] in allowed, f"{path}:{line}: {name}"


def test_ext_imports_no_fastconv_python():
    for path in (ROOT / "_ext").glob("*.pyx"):
        for found in re.findall(r"^\s*(?:from|import)\s+(fastconv\S*)", path.read_text(), re.M):
            assert found.startswith("fastconv._ext"), f"{path}: {found}"


GRADIENT_CHECK = [name for name in vars(gradient_check) if name.startswith(("eval_", "grad_", "rel_"))]
PACKS = (cmu11785, cs231n, deeplearning_ai, dlfs)
PUBLIC = [(module, name) for module in (fastconv, *PACKS) for name in module.__all__]
PUBLIC += [(Tape, name) for name in ("__call__", *(name for name in dir(Tape) if not name.startswith("_")))]
PUBLIC += [(gradient_check, name) for name in GRADIENT_CHECK]
DOCUMENTED = [(module, name) for module, name in PUBLIC if inspect.isfunction(getattr(module, name))]
LAYERS = [
    getattr(module, name) for module in PACKS for name in module.__all__ if inspect.isclass(getattr(module, name))
]


@pytest.mark.parametrize(("module", "name"), DOCUMENTED, ids=[f"{m.__name__}.{n}" for m, n in DOCUMENTED])
def test_docstrings_are_whole(module, name):
    function = getattr(module, name)
    doc, signature = inspect.getdoc(function) or "", inspect.signature(function)
    assert ">>>" in doc, "no example"
    for parameter in signature.parameters:
        if parameter not in ("self", "unknown"):  # the second collects what is refused
            assert re.search(rf"\b{parameter}\b", doc.split(">>>")[0]), f"{parameter} is not described"
    if signature.parameters:
        assert "Raises\n---" in doc or name == "rel_error", "errors are not described"
    if signature.return_annotation not in ("None", "Iterator[None]"):
        assert "Returns\n---" in doc, "the result is not described"


@pytest.mark.parametrize("layer", LAYERS)
def test_docstrings_of_layers_are_whole(layer):
    doc = inspect.getdoc(layer)
    assert layer.__doc__ and ">>>" in doc and "Raises\n---" in doc
    for parameter in inspect.signature(layer).parameters:
        assert re.search(rf"\b{parameter}\b", doc.split(">>>")[0]), f"{parameter} is not described"
    for method in (layer.forward, layer.backward):
        assert inspect.getdoc(method), f"{method.__qualname__} is not described"


def test_py_typed():
    assert (ROOT / "py.typed").is_file()


def test_everything_public_is_listed():
    private = ("_", "annotations")
    public = {name for name in dir(fastconv) if not name.startswith(private)}
    packages = {"compat", "demo", "geometry", "lowering", "im2col", "toeplitz"}
    assert public - packages == set(fastconv.__all__) - packages
    assert re.fullmatch(r"\d+\.\d+\.\d+", fastconv.__version__)


@pytest.mark.skipif(not (TREE / "setup.py").is_file(), reason="needs the source tree")
def test_unbuilt_tree_says_what_to_type(tmp_path):
    shutil.copytree(ROOT, tmp_path / "fastconv", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
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


def test_show_config(capsys):
    fastconv.show_config()
    text = capsys.readouterr().out
    for word in ("fastconv", fastconv.__version__, "numpy", np.__version__, "scipy", "BLAS", "threads", "im2col"):
        assert word in text
